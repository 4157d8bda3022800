"""One file of the cache: what it holds, a video's frames, uncompressed, and their checksums.

Layout: magic (8 bytes), length of the header (uint32, a multiple of 4096), CRC-32 of the rest of
it (uint32), JSON, zeros up to that length; the frames, uint8 [N, H, W, 3]; a checksum of each
(uint32 [N]) and the CRC-32 of these (uint32). Little-endian. Version 1 had no checksums of frames;
in version 2 the frames of odd files could be in another order.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
import zlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from io import FileIO
from pathlib import Path
from typing import Final, Self

import numpy as np

from videomae_fast.data.cache.checksums import Checksums, frame_checksums, table_bytes, unpack_table
from videomae_fast.data.decoders import Frames
from videomae_fast.data.decoders.base import ReaderBase, check_ids
from videomae_fast.data.decoders.content import Video

Shape = tuple[int, int, int, int]

SUFFIX: Final = ".frames"
_MAGIC: Final = b"VMFFRAME"
_VERSION: Final = 3
_PREFIX: Final = struct.Struct("<8sII")
_PAGE: Final = 4096
# Paths have at most 4096 bytes, and JSON writes one of them with 6 characters at most.
_LONGEST: Final = 16 * _PAGE


class DamagedEntryError(Exception):
    """A file in the cache is not what its name promises: cut off, corrupt or foreign."""


class OtherVersionError(Exception):
    """An entry in the format of another version of this library."""


@dataclass(frozen=True)
class Origin:
    """A video file as it is now, and the decoder that reads it: what frames belong to.

    path: without links; bytes, changed: its size and its time of change in ns; decoder: its name.
    A video that has no path is known by its name, and its checksum stands for the time.
    """

    path: str
    bytes: int
    changed: int
    decoder: str

    @classmethod
    def of(cls, path: Video, decoder: str) -> Self:
        """Raises ``OSError`` where there is no such file, and DecodeError where a store does not
        know the row."""
        if not isinstance(path, Path):
            return cls(path.name, path.size, path.checksum, decoder)
        status = os.stat(path)
        return cls(os.path.realpath(path), status.st_size, status.st_mtime_ns, decoder)

    @property
    def name(self) -> str:
        """The entry's file name: of path and decoder only, so a changed file has no second one."""
        key = os.fsencode(f"{self.decoder}\0{self.path}")
        return hashlib.sha256(key).hexdigest()[:40] + SUFFIX


def entry_bytes(origin: Origin, shape: Shape) -> int:
    """Size of the file with frames of this shape."""
    return len(header(origin, shape)) + _content_bytes(shape)


def _content_bytes(shape: Shape) -> int:
    """Frames and checksums."""
    return int(np.prod(shape, dtype=np.int64)) + table_bytes(shape[0])


def header(origin: Origin, shape: Shape) -> bytes:
    """What the file begins with."""
    about = {"version": _VERSION, "shape": list(shape), **asdict(origin)}
    content = json.dumps(about).encode("ascii")
    length = -(-(_PREFIX.size + len(content)) // _PAGE) * _PAGE
    content = content.ljust(length - _PREFIX.size, b"\0")
    return _PREFIX.pack(_MAGIC, length, zlib.crc32(content)) + content


def open_entry(path: Path, origin: Origin) -> EntryReader | None:
    """The frames of ``origin`` in this file; None where there is no file, or one of older frames.

    Raises :class:`DamagedEntryError` with the reason, :class:`OtherVersionError`, and ``OSError``
    where it can't be read.
    """
    try:
        file = path.open("rb", buffering=0)
    except FileNotFoundError:
        return None
    try:
        about, length = _read_header(file.fileno())
        version = about.get("version")
        if version != _VERSION:
            raise OtherVersionError(f"its format is version {version}, this is {_VERSION}")
        shape = about.pop("shape", None)
        if about != {"version": _VERSION, **asdict(origin)}:
            file.close()
            return None
        if not (isinstance(shape, list) and len(shape) == 4 and min(shape) >= 1):
            raise DamagedEntryError(f"its header has the shape {shape}")
        whole = (shape[0], shape[1], shape[2], shape[3])
        expected = length + _content_bytes(whole)
        found = os.fstat(file.fileno()).st_size
        if found != expected:
            raise DamagedEntryError(f"it has {found:,} bytes, and its header says {expected:,}")
        size = table_bytes(whole[0])
        checksums = unpack_table(os.pread(file.fileno(), size, expected - size))
        if checksums is None:
            raise DamagedEntryError("its checksums are corrupt")
    except BaseException:
        file.close()
        raise
    return EntryReader(file, length, whole, checksums)


def _read_header(handle: int) -> tuple[dict[str, object], int]:
    start = os.pread(handle, _PAGE, 0)
    if len(start) < _PREFIX.size or start[: len(_MAGIC)] != _MAGIC:
        raise DamagedEntryError("it is no file of frames")
    _, length, checksum = _PREFIX.unpack_from(start)
    if length > _LONGEST or length % _PAGE:
        raise DamagedEntryError("its header is corrupt")
    if length > len(start):
        start += os.pread(handle, length - len(start), len(start))
    content = start[_PREFIX.size : length]
    if len(start) < length or zlib.crc32(content) != checksum:
        raise DamagedEntryError("its header is corrupt")
    about = json.loads(content.rstrip(b"\0"))
    assert isinstance(about, dict)  # the checksum is right
    return about, length


class EntryReader(ReaderBase):
    """The frames of an entry, with the contract of ``VideoReader``.

    Frames are read and not mapped: nothing stays mapped, and a file that is cut off while it is
    open is an error here and not a signal that ends the process.

    ``read`` raises :class:`DamagedEntryError` where the file has become shorter or a frame is not
    what was written, ``OSError`` where the disk fails.
    """

    def __init__(self, file: FileIO, offset: int, shape: Shape, checksums: Checksums) -> None:
        self._file = file
        self._offset = offset
        self._checksums = checksums
        self.shape = shape

    @property
    def frame_count(self) -> int:
        return self.shape[0]

    def read(self, ids: Sequence[int]) -> Frames:
        numbers = check_ids(ids, self.frame_count)
        frames = np.empty((len(numbers), *self.shape[1:]), dtype=np.uint8)
        handle, size = self._file.fileno(), frames[0].nbytes
        first = 0
        for index in range(1, len(numbers) + 1):  # frames that follow each other are one read
            if index == len(numbers) or numbers[index] != numbers[index - 1] + 1:
                run = frames[first:index].data.cast("B")
                _read_into(handle, run, self._offset + numbers[first] * size)
                first = index
        wrong = np.flatnonzero(frame_checksums(frames) != self._checksums[numbers])
        if len(wrong):
            raise DamagedEntryError(f"frame {numbers[wrong[0]]} is not as it was written")
        return frames

    def same_file(self, path: Path) -> bool:
        """Whether this name is still that of the file that is read."""
        try:
            return os.path.samestat(os.stat(path), os.fstat(self._file.fileno()))
        except FileNotFoundError:
            return False

    def close(self) -> None:
        self._file.close()


def _read_into(handle: int, view: memoryview, offset: int) -> None:
    while len(view):
        count = os.preadv(handle, [view], offset)
        if not count:
            raise DamagedEntryError("it was cut off while it was read")
        view, offset = view[count:], offset + count
