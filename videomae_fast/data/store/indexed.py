"""Clips that lie somewhere in files, as an index of their places tells."""

from __future__ import annotations

import bisect
import zlib
from abc import abstractmethod
from collections.abc import Sequence
from itertools import accumulate
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from videomae_fast.data.store.base import ClipStore, Row, StoredClipError
from videomae_fast.data.store.index import DamagedIndexError, Index, Place


class Ranges(Protocol):
    """Parts of files by name; where they lie is its own."""

    def read(self, name: str, offset: int, size: int) -> bytes:
        """Bytes of a file, fewer where it ends before.

        Raises:
            OSError: it can't be read; a ``FileNotFoundError`` where it is not there.
        """
        ...

    def close(self) -> None: ...


class IndexedStore(ClipStore):
    """Clips in files of any kind.

    Args:
        path: where the store lies, for messages.
        version: of the store.
        indices: of its parts, in their order.
        files: the names that each part's index gives numbers to.
        ranges: reads these files.
    """

    def __init__(
        self,
        path: str,
        version: int,
        indices: Sequence[Index],
        files: Sequence[Sequence[str]],
        ranges: Ranges,
    ) -> None:
        self.path, self.version = path, version
        self._indices, self._files = indices, files
        self._ends = list(accumulate(len(index) for index in indices))
        self._ranges = ranges

    def __len__(self) -> int:
        return self._ends[-1]

    def row(self, row: int) -> Row:
        return self._found(row)[0]

    def read(self, row: int) -> bytes:
        known, file, place = self._found(row)
        where = self.place(row, known.source)
        try:
            content = self._ranges.read(file, place.offset, place.size)
        except FileNotFoundError:
            raise StoredClipError(where, f"its file {file} is missing") from None
        except OSError as error:
            why = error.strerror or str(error)
            raise StoredClipError(where, f"its file {file} can't be read: {why}") from error
        if len(content) < place.size:
            raise StoredClipError(where, f"its file {file} is cut off")
        if zlib.crc32(content) != place.crc32:
            raise StoredClipError(where, f"its bytes in {file} are not those that were written")
        return content

    def where(self, row: int) -> tuple[str, Place]:
        """The name of the file that a clip lies in, and where in it.

        Raises:
            StoredClipError: the index is damaged there.
        """
        _, file, place = self._found(row)
        return file, place

    @property
    def labels(self) -> NDArray[np.int32]:
        parts = [index.labels for index in self._indices]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def containing(self, part: bytes) -> NDArray[np.bool_]:
        return np.concatenate([index.containing(part) for index in self._indices])

    @abstractmethod
    def digest(self) -> str: ...

    @abstractmethod
    def identity(self) -> str: ...

    def close(self) -> None:
        self._ranges.close()

    def _found(self, row: int) -> tuple[Row, str, Place]:
        number = bisect.bisect_right(self._ends, self.check(row))
        index = self._indices[number]
        try:
            known, place = index.row(row - self._ends[number] + len(index))
            return known, self._files[number][place.file], place
        except (DamagedIndexError, IndexError):
            raise StoredClipError(self.place(row), "the store's index is damaged there") from None
