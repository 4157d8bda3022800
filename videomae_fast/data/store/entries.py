"""The rows of a store as training takes the entries of a list."""

from __future__ import annotations

import os

import numpy as np
from numpy.typing import NDArray

from videomae_fast.data.lists.reading import Entry
from videomae_fast.data.store.base import ClipStore
from videomae_fast.data.store.opening import StoredClip


class StoreEntries:
    """The clips of a store, or some of them, in its order.

    Nothing is held per row, but for the numbers of the rows where some were chosen.

    Args:
        store: open.
        rows: int64 [n], those that are meant; None: all.
    """

    def __init__(self, store: ClipStore, rows: NDArray[np.int64] | None = None) -> None:
        self.store = store
        self._rows = rows

    def __len__(self) -> int:
        return len(self.store) if self._rows is None else len(self._rows)

    def __getitem__(self, index: int) -> Entry:
        """An entry; its line is the number of its row, from 0."""
        clip = self.clip(index)
        return Entry(clip.source, 0, -1, self.store.label(clip.number), clip.number)

    def brief(self, index: int) -> Entry:
        """An entry without its path, which no reader needs and a store may have to look up."""
        number = self.clip(index).number
        return Entry("", 0, -1, self.store.label(number), number)

    def clip(self, index: int) -> StoredClip:
        """An entry as a video."""
        if not 0 <= index < len(self):
            raise IndexError(f"entry {index} of {self.store.path}, which has {len(self)}")
        row = index if self._rows is None else int(self._rows[index])
        return StoredClip(self.store.path, self.store.version, row)

    @property
    def label(self) -> NDArray[np.int32]:
        """int32 [n], -1 where there is none."""
        labels = self.store.labels
        return labels if self._rows is None else labels[self._rows]

    @property
    def total(self) -> NDArray[np.int32]:
        """int32 [n], -1: all are videos."""
        return np.broadcast_to(np.int32(-1), len(self))

    def select(self, keep: NDArray[np.bool_]) -> StoreEntries:
        """Some of the entries; ``keep`` is bool [n]."""
        rows = np.flatnonzero(keep)
        return StoreEntries(self.store, rows if self._rows is None else self._rows[rows])

    def containing(self, part: str) -> NDArray[np.bool_]:
        """Which sources contain some text, bool [n].

        Raises:
            ValueError: the text is empty.
        """
        if not part or not len(self):
            raise ValueError("the part of a source to look for must not be empty")
        found = self.store.containing(os.fsencode(part))
        return found if self._rows is None else found[self._rows]

    def place(self, index: int) -> str:
        """For messages: the store and the row."""
        return self.store.place(self.clip(index).number)
