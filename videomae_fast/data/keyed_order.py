"""Which video a step sees, computed at its place, with no table of entries."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from videomae_fast.data.bijection import Bijection, BlockShuffle
from videomae_fast.data.order import ASSIGN, PERMUTE, EpochOrder, Order, random_words

_MIXED: Final = 1024
"""Neighbouring draws among which the sources are mixed."""

_MOST: Final = 1 << 32
"""Draws of an epoch whose shares are still exact in 64 bits."""


class KeyedOrder(Order):
    """Draws whose time and memory don't depend on how many entries there are.

    A source's entries come by a keyed permutation (:class:`Bijection`), a new one for each time
    through. Which source a draw is from follows by halving the sources: in every stretch of an
    epoch each has its share to within a few draws, and within runs of 1,024 draws their order is
    random. No entry of a single source is drawn a second time before every entry was drawn once;
    of several sources this holds but for such a run.

    Args:
        block: neighbouring entries that are read together; 1 shuffles every entry by itself.
        window: blocks whose draws are mixed (see :class:`BlockShuffle`).

    Raises:
        ValueError: as :class:`Order`; an epoch of 2**32 draws or more from several sources.
    """

    def __init__(
        self,
        lengths: Sequence[int],
        shares: Sequence[float],
        epoch_size: int,
        seed: int,
        *,
        block: int = 1,
        window: int = 64,
    ) -> None:
        super().__init__(lengths, shares, epoch_size, seed)
        if min(block, window) < 1:
            raise ValueError(f"block ({block}) and window ({window}) must be at least 1")
        if len(lengths) > 1 and epoch_size >= _MOST:
            raise ValueError(f"an epoch from several sources has fewer than {_MOST:,} draws")
        self.block = block
        self.window = window
        self._permuted = lru_cache(maxsize=2 * len(lengths))(self._permutation)

    def at(self, epoch: int, begin: int, end: int) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        """See :meth:`Order.at`."""
        before, after = self._before(epoch), self._before(epoch + 1)
        places = np.arange(begin, end, dtype=np.int64)
        if len(before) == 1:
            sources = np.zeros(len(places), dtype=np.int32)
        else:
            counts = [last - first for first, last in zip(before, after, strict=True)]
            sources, places = _split(self._mixed(epoch, places), counts)
        entries = np.empty_like(places)
        for source in np.unique(sources):
            mine = sources == source
            entries[mine] = self._entries(int(source), before[source] + places[mine])
        return sources, entries

    def _mixed(self, epoch: int, places: NDArray[np.int64]) -> NDArray[np.int64]:
        """Places of an epoch, permuted within each run of 1,024."""
        mixed = places.copy()
        runs = places // _MIXED
        for run in np.unique(runs):
            first = int(run) * _MIXED
            count = min(_MIXED, self.epoch_size - first)
            inside = runs == run
            shuffle = Bijection(count, self.seed, ASSIGN, 2, epoch, int(run))
            mixed[inside] = first + shuffle(places[inside] - first)
        return mixed

    def _entries(self, source: int, drawn: NDArray[np.int64]) -> NDArray[np.int64]:
        """Entries of a source's draws, these counted over the whole run."""
        cycles, places = np.divmod(drawn, self.lengths[source])
        for cycle in np.unique(cycles):
            inside = cycles == cycle
            places[inside] = self._permuted(source, int(cycle))(places[inside])
        return places

    def _permutation(self, source: int, cycle: int) -> Bijection | BlockShuffle:
        key = (self.seed, PERMUTE, source, cycle)
        length = self.lengths[source]
        if self.block == 1:
            return Bijection(length, *key)
        return BlockShuffle(length, self.block, self.window, *key)

    def mixing(self, videos_per_step: int) -> tuple[float, float]:
        """How well a block shuffle mixes the first source, looked at over some windows of draws.

        Returns:
            The mean distance in draws between entries that are neighbours in the store, and the
            largest share of a step that comes from one block.
        """
        length = self.lengths[0]
        count = min(length, 4 * self.block * self.window)
        first = int(random_words(1, self.seed, ASSIGN, 3)[0] % (length - count + 1))
        entries = self._permuted(0, 0)(np.arange(first, first + count, dtype=np.int64))
        place = np.argsort(entries, kind="stable")
        near = np.diff(entries[place]) == 1
        distances = np.abs(np.diff(place))[near]
        blocks = entries // self.block
        steps = [blocks[i : i + videos_per_step] for i in range(0, count, videos_per_step)]
        most = max(int(np.unique(step, return_counts=True)[1].max()) for step in steps)
        return float(distances.mean()) if near.any() else float(length), most / videos_per_step


def _split(
    places: NDArray[np.int64], counts: Sequence[int]
) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Sources of places of an epoch, and how many draws of the same source come before each.

    The sources are halved again and again; of the first i + 1 draws of a half, its first part gets
    the whole part of its share of them, so all are spread evenly.
    """
    sources = np.zeros(len(places), dtype=np.int32)
    ranks = places.astype(np.uint64)
    stack = [(0, len(counts), np.arange(len(places)))]
    while stack:
        low, high, mine = stack.pop()
        if high - low == 1 or not len(mine):
            sources[mine] = low
            continue
        middle = (low + high) // 2
        part, whole = np.uint64(sum(counts[low:middle])), np.uint64(sum(counts[low:high]))
        at = ranks[mine]
        passed = at * part // whole
        is_first = (at + np.uint64(1)) * part // whole > passed
        ranks[mine] = np.where(is_first, passed, at - passed)
        stack += [(low, middle, mine[is_first]), (middle, high, mine[~is_first])]
    return sources, ranks.astype(np.int64)


def draw_order(
    kind: str,
    lengths: Sequence[int],
    shares: Sequence[float],
    epoch_size: int,
    seed: int,
    *,
    block: int = 1,
    window: int = 64,
) -> Order:
    """The order of draws, "computed" or by a "table": ``data.order`` of a configuration.

    Raises:
        ValueError: numbers that can't be.
    """
    if kind == "table":
        return EpochOrder(lengths, shares, epoch_size, seed)
    return KeyedOrder(lengths, shares, epoch_size, seed, block=block, window=window)


def told_mixing(order: Order, videos_per_step: int) -> list[str]:
    """How blocks of an order are mixed, a line; none where entries are drawn each by itself."""
    if not isinstance(order, KeyedOrder) or order.block == 1:
        return []
    distance, share = order.mixing(videos_per_step)
    return [
        f"blocks of {order.block} entries, {order.window} mixed: neighbours are drawn "
        f"{distance:,.0f} draws apart on average, {share:.1%} of a step at most are of one block"
    ]
