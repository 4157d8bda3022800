"""Clips that are drawn once: a number of views of each video, which epochs take in turn."""

from __future__ import annotations

from dataclasses import replace
from itertools import accumulate
from typing import Any

from videomae_fast.data.dataset import ClipDataset
from videomae_fast.data.order import Draw, item_words
from videomae_fast.data.reading import ClipRequest
from videomae_fast.data.views.rule import WORDS_PER_SAMPLE


class FixedViews(ClipDataset):
    """A data set whose clips depend on (seed, view, entry) instead of (seed, epoch, position).

    So something that was computed of a clip once, as a teacher's output, is of the very clip that
    every later epoch with that view draws. Seeds of masks and drop path are new in each epoch.

    Args:
        views: of each entry; epoch e has view ``e % views``.
        others: of :class:`ClipDataset`.

    Raises:
        ValueError: no view.
    """

    def __init__(self, *others: Any, views: int, **options: Any) -> None:
        if views < 1:
            raise ValueError(f"views ({views}) must be at least 1")
        super().__init__(*others, **options)
        self.views = views
        self._first = [0, *accumulate(len(source) for source in self.sources)]

    @property
    def entries(self) -> int:
        """Of all lists."""
        return self._first[-1]

    def row(self, draw: Draw) -> int:
        """The number of a draw's clips among those of all views: views one after the other, in each
        the entries of all lists in their order."""
        return draw.epoch % self.views * self.entries + self._first[draw.source] + draw.entry

    def draw_of(self, row: int) -> Draw:
        """A draw of this number."""
        view, place = divmod(row, self.entries)
        source = next(s for s, end in enumerate(self._first[1:]) if place < end)
        return Draw(0, view, place, source, place - self._first[source])

    def request(self, draw: Draw) -> ClipRequest:
        made = super().request(draw)
        view, place = divmod(self.row(draw), self.entries)
        words = item_words(self.seed, view, place, len(made.words))
        # Drop path is drawn from these, which is the training's and no part of the clips
        words[3::WORDS_PER_SAMPLE] = made.words[3::WORDS_PER_SAMPLE]
        return replace(made, words=tuple(words))
