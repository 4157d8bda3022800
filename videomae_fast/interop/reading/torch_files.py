"""torch's checkpoints: the tensors in them, mapped from the file, and plain values beside them.

Both formats: the zip archive of torch 1.6 and later (a pickle, and an entry for each storage), and
the stream of pickles before. A storage is made only when a tensor of it is asked for, and only of
bytes that the file has: what the pickle claims is compared with them first.
"""

from __future__ import annotations

import io
import mmap
import re
import struct
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

from videomae_fast.interop.reading.torch_pickles import (
    StorageRecord,
    TensorRecord,
    read_torch_pickle,
)

_MAGIC: Final = 0x1950A86A20F9469CFC6C
_PROTOCOL: Final = 1001
_DIRECTORY: Final = 1 << 22  # bytes of an archive's directory: some 50,000 entries
_DTYPES: Final = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
    "ComplexDoubleStorage": torch.complex128,
    "ComplexFloatStorage": torch.complex64,
    "UntypedStorage": torch.uint8,
}
_NAMED_DTYPES: Final = {
    f"torch.{name}": value for name, value in vars(torch).items() if isinstance(value, torch.dtype)
}


class TorchFileError(ValueError):
    """A file that is no torch checkpoint, or claims what it does not hold."""


@dataclass(frozen=True)
class Place:
    """Where a storage's bytes are in the file.

    Attributes:
        start: the first byte.
        size: in bytes.
        crc: CRC-32 of them; 0 where nobody computed it.
    """

    start: int
    size: int
    crc: int = 0


@dataclass
class TorchFile:
    """What a checkpoint holds.

    Attributes:
        value: plain values, with :class:`TensorRecord` in the place of tensors.
    """

    value: Any
    _bytes: mmap.mmap
    _places: Mapping[str, Place]
    _made: dict[str, Tensor] = field(default_factory=dict)

    def tensor(self, record: TensorRecord) -> Tensor:
        """The tensor of a record.

        Args:
            record: of this file.

        Returns:
            The tensor, on the CPU. Its memory is the file's, mapped; writing to it copies.

        Raises:
            TorchFileError: it claims more than its storage has, or the storage is damaged.
        """
        memory = self._memory(record.storage)
        dtype = _dtype(record)
        count = memory.nbytes // dtype.itemsize
        offset, shape, stride = record.offset, record.shape, record.stride
        if isinstance(shape, list):
            shape = tuple(shape)
        if not (_whole((offset,)) and _whole(shape) and _whole(stride)):
            raise TorchFileError("a tensor's shape is no row of numbers")
        if len(shape) != len(stride) or len(shape) > 16:
            raise TorchFileError(f"a tensor has {len(shape)} sizes and {len(stride)} strides")
        values = 1
        for size in shape:
            values *= size
        last = offset + sum((n - 1) * step for n, step in zip(shape, stride, strict=True))
        if values and (values > count or last >= count):
            raise TorchFileError(
                f"a tensor claims {values:,} values up to place {last:,} of a storage that has "
                f"{count:,}"
            )
        if values and _overlaps(shape, stride):
            raise TorchFileError(f"a tensor's values overlap: shape {shape}, strides {stride}")
        return torch.empty(0, dtype=dtype).set_(
            memory.untyped_storage(), offset if values else 0, shape, stride
        )

    def _memory(self, storage: StorageRecord) -> Tensor:
        """uint8 [bytes], all of a storage."""
        if storage.key in self._made:
            return self._made[storage.key]
        place = self._places.get(storage.key)
        if place is None:
            raise TorchFileError(f"storage {storage.key[:20]!r} is not in the file")
        claimed = storage.count * _dtype(storage).itemsize
        if claimed != place.size:
            raise TorchFileError(
                f"storage {storage.key[:20]!r} claims {claimed:,} bytes, the file has "
                f"{place.size:,} for it"
            )
        if not place.size:
            made = torch.empty(0, dtype=torch.uint8)
        else:
            made = torch.frombuffer(
                self._bytes, dtype=torch.uint8, count=place.size, offset=place.start
            )
            if place.crc and zlib.crc32(self._view(place)) != place.crc:
                raise TorchFileError(
                    f"storage {storage.key[:20]!r} is damaged: its checksum differs"
                )
            if place.start % 16:  # streams don't align
                made = made.clone()
        self._made[storage.key] = made
        return made

    def _view(self, place: Place) -> memoryview:
        return memoryview(self._bytes)[place.start : place.start + place.size]


def open_archive(path: Path) -> TorchFile:
    """Opens a checkpoint of torch 1.6 and later.

    Args:
        path: of a ZIP archive.

    Returns:
        What it holds; no tensor is read yet.

    Raises:
        TorchFileError: an archive of other things, or one that claims what it does not hold.
        Exception: others for other damage; a net is needed (:mod:`.refusal`).
    """
    data = _mapped(path)
    _check_directory(data)
    with zipfile.ZipFile(path) as archive:
        entries = {info.filename: info for info in archive.infolist()}
    pickles = [name for name in entries if re.fullmatch(r"[^/]+/data\.pkl", name)]
    if len(pickles) != 1:
        shown = ", ".join(name[:40] for name in list(entries)[:3])
        raise TorchFileError(f"an archive of other things: {shown}")
    folder = pickles[0].removesuffix("data.pkl")
    if f"{folder}constants.pkl" in entries:
        raise TorchFileError("a TorchScript program; save the state dict of its model instead")
    places = {name: _place(data, info) for name, info in entries.items()}
    order = places.get(f"{folder}byteorder")
    if order is not None and _content(data, order) != b"little":
        raise TorchFileError("its numbers are big-endian; save it again on another machine")
    inside = f"{folder}data/"
    return TorchFile(
        read_torch_pickle(io.BytesIO(_content(data, places[pickles[0]]))),
        data,
        {n.removeprefix(inside): p for n, p in places.items() if n.startswith(inside)},
    )


def open_stream(path: Path) -> TorchFile:
    """Opens a checkpoint of torch before 1.6: pickles, then the storages one after the other.

    Args:
        path: of the file.

    Returns:
        What it holds; no tensor is read yet.

    Raises:
        TorchFileError: a pickle of something else, or one that claims what it does not hold.
        Exception: others for other damage; a net is needed (:mod:`.refusal`).
    """
    data = _mapped(path)
    if read_torch_pickle(data) != _MAGIC:
        raise TorchFileError("a Python pickle of something else")
    if read_torch_pickle(data) != _PROTOCOL:
        raise TorchFileError("of an unknown version of torch's old format")
    system = read_torch_pickle(data)
    if not isinstance(system, dict) or system.get("little_endian") is not True:
        raise TorchFileError("its numbers are big-endian; save it again on another machine")
    storages: dict[str, StorageRecord] = {}
    value, keys = read_torch_pickle(data, storages), read_torch_pickle(data)
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise TorchFileError("its list of storages is none")
    return TorchFile(value, data, _stream_places(data, keys, storages))


def _stream_places(
    data: mmap.mmap, keys: list[str], storages: Mapping[str, StorageRecord]
) -> dict[str, Place]:
    """Each storage begins with the number of its elements, in 8 bytes."""
    places: dict[str, Place] = {}
    start = data.tell()
    for key in keys:
        if key not in storages:
            raise TorchFileError(f"nothing refers to storage {key[:20]!r}")
        (count,) = struct.unpack("<q", data[start : start + 8])
        size = count * _dtype(storages[key]).itemsize
        start += 8
        if count < 0 or start + size > len(data):
            raise TorchFileError(f"storage {key[:20]!r} claims {size:,} bytes, more than there are")
        places[key] = Place(start, size)
        start += size
    if start != len(data):
        raise TorchFileError(f"{len(data) - start:,} bytes follow its last storage")
    return places


def _mapped(path: Path) -> mmap.mmap:
    """The file's bytes: writable, but what is written stays in memory. Tensors keep the map."""
    with path.open("rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)


def _check_directory(data: mmap.mmap) -> None:
    """zipfile makes objects of all entries at once, so their number is looked at before."""
    end = data.rfind(b"PK\5\6", max(0, len(data) - (1 << 16) - 22))
    (size,) = struct.unpack("<I", data[end + 12 : end + 16]) if end >= 0 else (0,)
    if size == 0xFFFFFFFF:  # then the true one is in the record before
        before = data.rfind(b"PK\6\6", max(0, end - (1 << 16)), end)
        (size,) = struct.unpack("<Q", data[before + 40 : before + 48])
    if size > _DIRECTORY:
        raise TorchFileError(f"its list of entries has {size:,} bytes, as no checkpoint's has")


def _place(data: mmap.mmap, info: zipfile.ZipInfo) -> Place:
    """Where an entry's bytes are: behind a header of its own."""
    if info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size:
        raise TorchFileError(
            f"entry {info.filename[:40]!r} is compressed, which torch never does; save it anew"
        )
    header = data[info.header_offset : info.header_offset + 30]
    if header[:4] != b"PK\3\4" or len(header) < 30:
        raise TorchFileError(f"entry {info.filename[:40]!r} is not where the archive says")
    name, extra = struct.unpack("<HH", header[26:30])
    start = info.header_offset + 30 + name + extra
    if start + info.file_size > len(data):
        raise TorchFileError(f"entry {info.filename[:40]!r} ends behind the file")
    return Place(start, info.file_size, info.CRC)


def _content(data: mmap.mmap, place: Place) -> bytes:
    found = data[place.start : place.start + place.size]
    if place.crc and zlib.crc32(found) != place.crc:
        raise TorchFileError("it is damaged: the checksum of its pickle differs")
    return found


def _dtype(record: StorageRecord | TensorRecord) -> torch.dtype:
    """A storage's elements, or a tensor's.

    Raises:
        TorchFileError: a kind that is not known.
    """
    if isinstance(record, StorageRecord):
        found = _DTYPES.get(record.kind)
        name = record.kind
    elif record.dtype is None:
        return _dtype(record.storage)
    else:
        name = record.dtype
        found = _NAMED_DTYPES.get(name)
    if found is None:
        raise TorchFileError(f"a tensor of kind {name[:40]!r}, which is not known here")
    return found


def _whole(values: Any) -> bool:
    """Whether these are counts, 0 or more."""
    return isinstance(values, tuple) and all(type(v) is int and 0 <= v < 1 << 62 for v in values)


def _overlaps(shape: tuple[int, ...], stride: tuple[int, ...]) -> bool:
    """Whether two of a tensor's values may have one place. No parameter is like that."""
    reach = 0
    for step, size in sorted(zip(stride, shape, strict=True)):
        if size > 1 and step <= reach:
            return True
        reach += (size - 1) * step
    return False
