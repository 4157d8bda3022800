"""The first kind of store: tar files, as WebDataset reads them, with an index of offsets."""

from __future__ import annotations

import bisect
import hashlib
import os
import zlib
from collections import OrderedDict
from collections.abc import Mapping
from itertools import accumulate
from pathlib import Path
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from videomae_fast.data.store.base import ClipStore, Row, StoredClipError, StoreError
from videomae_fast.data.store.head import HEAD, Part, head_text, read_head, version_of
from videomae_fast.data.store.index import FILES, DamagedIndexError, Index, Place

_OPEN: Final = 64  # tar files


class Ranges(Protocol):
    """Parts of files by name; where they lie is its own."""

    def read(self, name: str, offset: int, size: int) -> bytes:
        """Bytes of a file, fewer where it ends before.

        Raises:
            OSError: it can't be read; a ``FileNotFoundError`` where it is not there.
        """
        ...

    def close(self) -> None: ...


class TarStore(ClipStore):
    """Clips in tar files.

    Args:
        path: where the store lies, for messages.
        version: of the store.
        parts: of this version.
        indices: the files of each part's index, on this machine.
        ranges: reads the tar files.

    Raises:
        StoreError: an index can't be read.
    """

    def __init__(
        self,
        path: str,
        version: int,
        parts: list[Part],
        indices: list[Mapping[str, Path]],
        ranges: Ranges,
    ) -> None:
        self.path, self.version = path, version
        self.parts = parts
        self._indices = [
            Index(files, part.rows) for files, part in zip(indices, parts, strict=True)
        ]
        self._ends = list(accumulate(part.rows for part in parts))
        self._ranges = ranges

    def __len__(self) -> int:
        return self._ends[-1]

    def row(self, row: int) -> Row:
        return self._found(row)[0]

    def read(self, row: int) -> bytes:
        known, tar, place = self._found(row)
        where = self.place(row, known.source)
        try:
            content = self._ranges.read(tar, place.offset, place.size)
        except FileNotFoundError:
            raise StoredClipError(where, f"its file {tar} is missing") from None
        except OSError as error:
            why = error.strerror or str(error)
            raise StoredClipError(where, f"its file {tar} can't be read: {why}") from error
        if len(content) < place.size:
            raise StoredClipError(where, f"its file {tar} is cut off")
        if zlib.crc32(content) != place.crc32:
            raise StoredClipError(where, f"its bytes in {tar} are not those that were written")
        return content

    def where(self, row: int) -> tuple[str, Place]:
        """The name of the tar file that a clip lies in, and where in it.

        Raises:
            StoredClipError: the index is damaged there.
        """
        _, tar, place = self._found(row)
        return tar, place

    @property
    def labels(self) -> NDArray[np.int32]:
        parts = [index.labels for index in self._indices]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def containing(self, part: bytes) -> NDArray[np.bool_]:
        return np.concatenate([index.containing(part) for index in self._indices])

    def digest(self) -> str:
        return hashlib.sha256(head_text(self.parts).encode()).hexdigest()

    def close(self) -> None:
        self._ranges.close()

    def _found(self, row: int) -> tuple[Row, str, Place]:
        number = bisect.bisect_right(self._ends, self.check(row))
        part = self.parts[number]
        try:
            known, place = self._indices[number].row(row - self._ends[number] + part.rows)
            return known, part.tars[place.tar].name, place
        except (DamagedIndexError, IndexError):
            raise StoredClipError(self.place(row), "the store's index is damaged there") from None


class LocalRanges:
    """Files of a folder; the ones last read stay open."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._open: OrderedDict[str, int] = OrderedDict()

    def read(self, name: str, offset: int, size: int) -> bytes:
        file = self._file(name)
        content = os.pread(file, size, offset)
        if len(content) == size or not content:
            return content
        parts = [content]
        while (left := size - sum(map(len, parts))) and parts[-1]:
            parts.append(os.pread(file, left, offset + size - left))
        return b"".join(parts)

    def close(self) -> None:
        while self._open:
            os.close(self._open.popitem()[1])

    def _file(self, name: str) -> int:
        if name in self._open:
            self._open.move_to_end(name)
        else:
            if len(self._open) >= _OPEN:
                os.close(self._open.popitem(last=False)[1])
            self._open[name] = os.open(self._folder / name, os.O_RDONLY | os.O_CLOEXEC)
        return self._open[name]


def is_tar_store(folder: Path) -> bool:
    """Whether a folder is such a store."""
    return (folder / HEAD).is_file()


def local_parts(folder: Path) -> list[Part]:
    """The parts of a store in a folder.

    Raises:
        StoreError: its head can't be read.
    """
    head = folder / HEAD
    try:
        content = head.read_bytes()
    except OSError as error:
        raise StoreError(f"{head}: can't be read: {error.strerror or error}") from error
    return read_head(content, str(head))


def open_tar_store(folder: Path, version: int | None = None) -> TarStore:
    """Opens a store in a folder.

    Args:
        folder: of the store.
        version: None: the newest.

    Raises:
        StoreError: it can't be read, or has no such version.
    """
    parts = version_of(local_parts(folder), version, str(folder))
    for part in parts:
        for one in part.index.values():
            _check_size(folder / one.name, one.bytes)
    indices: list[Mapping[str, Path]] = [
        {what: folder / part.index[what].name for what in FILES} for part in parts
    ]
    return TarStore(str(folder), len(parts), parts, indices, LocalRanges(folder))


def _check_size(path: Path, expected: int) -> None:
    """Raises StoreError where a file of the index is missing or of another size. Tar files are
    looked at when they are read: one of them may be gone while the others serve."""
    try:
        found = path.stat().st_size
    except OSError as error:
        raise StoreError(f"{path}: the store's index can't be read: {error.strerror}") from error
    if found != expected:
        raise StoreError(
            f"{path}: the store's index has {found:,} bytes, and its head says {expected:,}: it "
            "was cut off or changed; take it from a copy of the store"
        )
