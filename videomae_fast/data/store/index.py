"""The index of a part of a tar store: where each clip lies, and what is known of it.

Three files of numpy's own format, mapped and not read, so that opening a part costs the same
whatever its length: ``rows`` (:data:`ROW`, 84 bytes each), ``labels`` (int32) and ``text`` (uint8:
of each row the clip's name, then its source). A row carries a checksum of all that is said of it.
"""

from __future__ import annotations

import os
import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from videomae_fast.data.store.base import Row, StoreError

ROW: Final = np.dtype(
    [
        ("offset", "<u8"),  # of the clip in its tar file, in bytes
        ("size", "<u8"),
        ("text", "<u8"),  # where its text begins
        ("tar", "<u4"),  # number of the tar file among the part's
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

FILES: Final = ("rows", "labels", "text")


class DamagedIndexError(Exception):
    """A row of an index is not what was written."""


@dataclass(frozen=True)
class Place:
    """Where a clip's bytes are: in the tar file of this number of its part."""

    tar: int
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
        self._rows = _mapped(files["rows"], ROW, rows)
        self.labels: NDArray[np.int32] = _mapped(files["labels"], np.dtype("<i4"), rows)
        self._text: NDArray[np.uint8] = _mapped(files["text"], np.dtype("u1"), None)

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

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, row: Row, tar: int, offset: int) -> None:
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
        said["offset"], said["text"], said["tar"] = offset, len(self._text), tar
        said["name_bytes"], said["source_bytes"] = len(name), len(source)
        said["sha256"] = np.void(row.sha256)
        said["check"] = _check(said.tobytes(), name + source, row.label)
        self._rows.append(said.tobytes())
        self._labels.append(row.label)
        self._text += name + source

    def write(self, files: Mapping[str, Path]) -> None:
        """Writes the files and syncs them; an ``OSError`` where they can't be."""
        arrays: dict[str, NDArray[Any]] = {
            "rows": np.frombuffer(b"".join(self._rows), dtype=ROW),
            "labels": np.array(self._labels, dtype="<i4"),
            "text": np.frombuffer(self._text, dtype=np.uint8),
        }
        for what, path in files.items():
            with path.open("wb") as file:
                np.save(file, arrays[what], allow_pickle=False)
                file.flush()
                os.fsync(file.fileno())


def _check(record: bytes, text: bytes, label: int) -> int:
    said = record[:_CHECKED] + text + label.to_bytes(4, "little", signed=True)
    return zlib.crc32(said)


def _mapped(path: Path, kind: np.dtype[Any], rows: int | None) -> NDArray[Any]:
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
