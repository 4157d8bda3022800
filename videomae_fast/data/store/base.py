"""What a store of clips is: rows of bytes, with what is known of them, in versions that stay."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from videomae_fast.data.errors import DecodeError
from videomae_fast.errors import VideoMAEFastError

UNKNOWN: Final = -1
"""In the place of a number that nobody knows."""


class StoreError(VideoMAEFastError, ValueError):
    """A store can't be opened, read or written as a whole; the message names it and the remedy."""


class StoredClipError(DecodeError):
    """A row of a store can't be read.

    Attributes:
        place: store, row and source, in words.
        reason: without them.
    """

    def __init__(self, place: str, reason: str) -> None:
        super().__init__(reason)
        self.place = place

    def __str__(self) -> str:
        return f"{self.place}: {self.reason}"

    def __reduce__(self) -> tuple[object, ...]:
        return StoredClipError, (self.place, self.reason)


@dataclass(frozen=True)
class Row:
    """What a store knows of a clip.

    Attributes:
        name: of its file within the store; with the ending that the file had.
        source: where it came from: its path as a list had it, or its name in a tar file.
        size: bytes.
        crc32: of the bytes, which every read is compared with.
        sha256: of the bytes, 32 of them.
        frames: as training counts them; -1: not known.
        rate: frames per second; 0: not known.
        longest_gop: frames from a key frame to the next at most; -1: not known.
        label: its class; -1: none.
    """

    name: str
    source: str
    size: int
    crc32: int
    sha256: bytes
    frames: int
    rate: float
    longest_gop: int
    label: int


class ClipStore(ABC):
    """Clips by row, from 0 on. A version is never changed: what is appended makes the next one,
    whose first rows are those of the one before.

    An object is of one process: :class:`~.opening.StoredClip` names a row for others.

    Attributes:
        path: where it lies, as it was given.
        version: from 1 on.
    """

    path: str
    version: int

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def row(self, row: int) -> Row:
        """What is known of a clip, without reading it.

        Raises:
            StoredClipError: the index is damaged there.
            IndexError: no such row.
        """

    @abstractmethod
    def read(self, row: int) -> bytes:
        """A clip's file, which is as it was written: its checksum is compared.

        Raises:
            StoredClipError: it can't be read, or is damaged.
            IndexError: no such row.
        """

    def label(self, row: int) -> int:
        """A clip's label; -1 where it has none, or the index is damaged there."""
        try:
            return self.row(row).label
        except StoredClipError:  # told when the clip is read
            return UNKNOWN

    @property
    @abstractmethod
    def labels(self) -> NDArray[np.int32]:
        """int32 [n], -1 where there is none."""

    @abstractmethod
    def containing(self, part: bytes) -> NDArray[np.bool_]:
        """Which sources contain some bytes, bool [n]."""

    @abstractmethod
    def digest(self) -> str:
        """SHA-256 of what names this version's clips and their bytes."""

    @abstractmethod
    def identity(self) -> str:
        """SHA-256 of what names this version's files: a copy of the store has the same one, and
        another store of this path and version has not. No row is looked at."""

    @abstractmethod
    def close(self) -> None:
        """Lets go of files."""

    def check(self, row: int) -> int:
        """The row; ``IndexError`` where there is none such."""
        if not 0 <= row < len(self):
            raise IndexError(f"row {row} of {self.path}, which has {len(self)}")
        return row

    def place(self, row: int, source: str | None = None) -> str:
        """A row in words."""
        return f"{self.path} row {row}" + ("" if source is None else f" ({source})")
