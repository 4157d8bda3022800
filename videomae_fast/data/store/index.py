"""The index of a part of a store: where each clip lies, and what is known of it.

Three files of numpy's own format, mapped and not read, so that opening a part costs the same
whatever its length: ``rows`` (:data:`ROW`, 84 bytes each), ``labels`` (int32) and ``text`` (uint8:
of each row the clip's name, then its source). A row carries a checksum of all that is said of it.
"""

from __future__ import annotations

import os
import re
import zlib
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

import numpy as np
from numpy.typing import NDArray

from videomae_fast.data.store.base import Row, StoreError

ROW: Final = np.dtype(
    [
        ("offset", "<u8"),  # of the clip in its file, in bytes
        ("size", "<u8"),
        ("text", "<u8"),  # where its text begins
        ("tar", "<u4"),  # number of the file among the part's
        ("crc32", "<u4"),
        ("frames", "<i4"),
        ("rate", "<f4"),
        ("longest_gop", "<i4"),
        ("name_bytes", "<u2"),
        ("source_bytes", "<u2"),
        ("sha256", "V32"),
        ("check", "<u4"),  # of the bytes before it, the text and the label
    ]
)
_CHECKED: Final = ROW.itemsize - 4
_LONGEST: Final = 2**16 - 1

_KINDS: Final = {"rows": ROW, "labels": np.dtype("<i4"), "text": np.dtype("u1")}
FILES: Final = tuple(_KINDS)


class DamagedIndexError(Exception):
    """A row of an index is not what was written."""


@dataclass(frozen=True)
class Place:
    """Where a clip's bytes are: in the file of this number of its part."""

    file: int
    offset: int
    size: int
    crc32: int


class Index:
    """An index that is there.

    Args:
        files: paths by what they hold, see ``FILES``.
        rows: how many there should be.

    Raises:
        StoreError: a file is missing, cut off, or none of this kind.
    """

    def __init__(self, files: Mapping[str, Path], rows: int) -> None:
        self._rows = _mapped(files, "rows", rows)
        self.labels: NDArray[np.int32] = _mapped(files, "labels", rows)
        self._text: NDArray[np.uint8] = _mapped(files, "text", None)

    def __len__(self) -> int:
        return len(self._rows)

    def row(self, row: int) -> tuple[Row, Place]:
        """What is said of a row.

        Raises:
            DamagedIndexError: it is not what was written.
        """
        said = self._rows[row]
        label, begin = int(self.labels[row]), int(said["text"])
        name_end = begin + int(said["name_bytes"])
        end = name_end + int(said["source_bytes"])
        text = self._text[begin:end].tobytes()
        if _check(said.tobytes(), text, label) != int(said["check"]) or len(text) != end - begin:
            raise DamagedIndexError
        cut = name_end - begin
        known = Row(
            name=os.fsdecode(text[:cut]),
            source=os.fsdecode(text[cut:]),
            size=int(said["size"]),
            crc32=int(said["crc32"]),
            sha256=said["sha256"].tobytes(),
            frames=int(said["frames"]),
            rate=float(said["rate"]),
            longest_gop=int(said["longest_gop"]),
            label=label,
        )
        return known, Place(int(said["tar"]), int(said["offset"]), known.size, known.crc32)

    def containing(self, part: bytes) -> NDArray[np.bool_]:
        """Which sources contain some bytes, bool [n]."""
        found = np.zeros(len(self), dtype=np.bool_)
        begins = self._rows["text"]
        # Looking ahead: a hit that is half a name's may overlap one that is all a source's.
        for hit in re.finditer(b"(?=" + re.escape(part) + b")", self._text.data):
            row = int(np.searchsorted(begins, hit.start(), side="right")) - 1
            said = self._rows[row]
            source = int(said["text"]) + int(said["name_bytes"])
            end = source + int(said["source_bytes"])
            found[row] |= source <= hit.start() and hit.start() + len(part) <= end
        return found


class IndexBuilder:
    """An index that is being made, in memory: about 300 bytes a row."""

    def __init__(self) -> None:
        self._rows: list[bytes] = []
        self._labels: list[int] = []
        self._text = bytearray()
        self._count = self._text_before = 0

    def __len__(self) -> int:
        """Rows that were added."""
        return self._count

    def add(self, row: Row, file: int, offset: int) -> None:
        """A row behind those that are there.

        Raises:
            ValueError: a name or a source that is too long.
        """
        name, source = os.fsencode(row.name), os.fsencode(row.source)
        if max(len(name), len(source)) > _LONGEST:
            raise ValueError(f"a name of more than {_LONGEST} bytes")
        said = np.zeros((), dtype=ROW)
        for field in ("size", "crc32", "frames", "rate", "longest_gop"):
            said[field] = getattr(row, field)
        said["offset"], said["tar"] = offset, file
        said["text"] = self._text_before + len(self._text)
        said["name_bytes"], said["source_bytes"] = len(name), len(source)
        said["sha256"] = np.void(row.sha256)
        said["check"] = _check(said.tobytes(), name + source, row.label)
        self._rows.append(said.tobytes())
        self._labels.append(row.label)
        self._count += 1
        self._text += name + source

    def drain(self) -> dict[str, NDArray[Any]]:
        """What the files get for the rows since the last call, which are forgotten here."""
        arrays: dict[str, NDArray[Any]] = {
            "rows": np.frombuffer(b"".join(self._rows), dtype=ROW),
            "labels": np.array(self._labels, dtype="<i4"),
            "text": np.frombuffer(bytes(self._text), dtype=np.uint8),
        }
        self._text_before += len(self._text)
        self._rows, self._labels, self._text = [], [], bytearray()
        return arrays

    def write(self, files: Mapping[str, Path]) -> None:
        """Writes the files and syncs them; an ``OSError`` where they can't be."""
        _write(files, [self.drain()])


def write_index(
    files: Mapping[str, Path], batches: Iterable[Iterable[tuple[Row, int, int]]]
) -> None:
    """Writes an index of rows with their places, of which one batch at a time is in memory.

    Args:
        files: paths by what they hold.
        batches: of rows, numbers of their files and offsets there.

    Raises:
        OSError: it can't be written.
        ValueError: a name or a source that is too long.
    """
    builder = IndexBuilder()

    def drained(batch: Iterable[tuple[Row, int, int]]) -> dict[str, NDArray[Any]]:
        for row, file, offset in batch:
            builder.add(row, file, offset)
        return builder.drain()

    _write(files, map(drained, batches))


def _write(files: Mapping[str, Path], parts: Iterable[Mapping[str, NDArray[Any]]]) -> None:
    """Writes the arrays of the files, which come in parts; numpy's header has room for any length,
    so that it is written again when that is known."""
    with ExitStack() as stack:
        opened = {what: stack.enter_context(path.open("wb")) for what, path in files.items()}
        counts = dict.fromkeys(files, 0)
        for what, file in opened.items():
            _write_header(file, what, 0)
        for part in parts:
            for what, file in opened.items():
                file.write(part[what].tobytes())
                counts[what] += len(part[what])
        for what, file in opened.items():
            file.seek(0)
            _write_header(file, what, counts[what])
            file.flush()
            os.fsync(file.fileno())


def _write_header(file: IO[bytes], what: str, length: int) -> None:
    kind = np.lib.format.dtype_to_descr(_KINDS[what])
    said = {"descr": kind, "fortran_order": False, "shape": (length,)}
    np.lib.format.write_array_header_1_0(file, said)


def _check(record: bytes, text: bytes, label: int) -> int:
    said = record[:_CHECKED] + text + label.to_bytes(4, "little", signed=True)
    return zlib.crc32(said)


def _mapped(files: Mapping[str, Path], what: str, rows: int | None) -> NDArray[Any]:
    path, kind = files[what], _KINDS[what]
    try:
        array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # numpy's own, and what its parser of headers meets
        why = getattr(error, "strerror", None) or str(error)
        raise StoreError(f"{path}: the store's index can't be read ({why})") from error
    if array.dtype != kind or array.ndim != 1 or rows not in (None, len(array)):
        raise StoreError(
            f"{path}: the store's index has another form than its head says ({array.dtype}, "
            f"{len(array) if array.ndim else 0} rows)"
        )
    return array.view(np.ndarray)
