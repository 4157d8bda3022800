"""The first kind of store: tar files, as WebDataset reads them, with an index of offsets."""

from __future__ import annotations

import hashlib
import os
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from videomae_fast.data.store.base import StoreError
from videomae_fast.data.store.head import HEAD, Part, head_text, read_head, version_of
from videomae_fast.data.store.index import FILES, Index
from videomae_fast.data.store.indexed import IndexedStore, Ranges

_OPEN: Final = 64  # tar files


class TarStore(IndexedStore):
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
        opened = [Index(files, part.rows) for files, part in zip(indices, parts, strict=True)]
        files = [[one.name for one in part.tars] for part in parts]
        super().__init__(path, version, opened, files, ranges)
        self.parts = parts

    def digest(self) -> str:
        return hashlib.sha256(head_text(self.parts).encode()).hexdigest()

    def identity(self) -> str:
        return self.digest()


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
