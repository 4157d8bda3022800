"""Which video a step sees: a pure function of the seed and the step.

Nothing here knows of ranks, workers or micro-batches; they take slices of the same order.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from fractions import Fraction
from itertools import repeat
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

# Separate streams of random words for separate purposes.
ASSIGN: Final = 1
PERMUTE: Final = 2
_ITEM: Final = 3


class Draw(NamedTuple):
    """One video to be read: its place in the run and the entry of the source.

    Attributes:
        step: of the run, in optimizer steps.
        epoch: from 0.
        position: place in the epoch's order.
        source: index of the source.
        entry: index of the entry in the source.
    """

    step: int
    epoch: int
    position: int
    source: int
    entry: int


def random_words(count: int, *key: int) -> NDArray[np.uint64]:
    """uint64 [count] that depend on the key (integers >= 0) alone.

    Raw words of PCG64 seeded through SeedSequence: both are guaranteed to stay the same in all
    versions of numpy, which distributions and ``permutation`` are not.
    """
    words: NDArray[np.uint64] = np.random.PCG64(np.random.SeedSequence(key)).random_raw(count)
    return words


def item_words(seed: int, epoch: int, position: int, count: int) -> list[int]:
    """The random words (64 bits each) that everything about one draw is made from."""
    return [int(word) for word in random_words(count, seed, _ITEM, epoch, position)]


def below(word: int, bound: int) -> int:
    """Maps a random 64-bit word to 0 ... bound - 1, evenly to within bound / 2**64."""
    return (word * bound) >> 64


def permutation(count: int, *key: int) -> NDArray[np.int64]:
    """A permutation of 0 ... count - 1, int64 [count], that depends on the key alone."""
    return np.argsort(random_words(count, *key), kind="stable")


class Order(ABC):
    """Deterministic weighted draws from several sources, epoch by epoch.

    How many draws of an epoch a source gets follows its share exactly, with the rounding carried
    over to the next epoch. Each source is gone through in random permutations, one after the other
    and **across** epochs. One source drawn as often as it is long gives the usual fresh permutation
    per epoch.

    Args:
        lengths: entries per source.
        shares: part of the draws per source, on any positive scale.
        epoch_size: draws per epoch.
        seed: at least 0.

    Raises:
        ValueError: no source, an empty one, or an epoch or seed that can't be.
    """

    def __init__(
        self, lengths: Sequence[int], shares: Sequence[float], epoch_size: int, seed: int
    ) -> None:
        if len(lengths) != len(shares) or not lengths or min(lengths) < 1:
            raise ValueError("every source needs at least one entry and a share")
        if epoch_size < 1 or seed < 0:
            raise ValueError(
                f"epoch_size ({epoch_size}) must be at least 1, seed ({seed}) at least 0"
            )
        self.lengths = list(lengths)
        self.epoch_size = epoch_size
        self.seed = seed
        total = sum(Fraction(share) for share in shares)
        self._shares = [Fraction(share) / total for share in shares]
        # _drawn[e][s]: draws of source s before epoch e.
        self._drawn: list[list[int]] = [[0] * len(lengths)]

    @abstractmethod
    def at(self, epoch: int, begin: int, end: int) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        """Sources and entries, [end - begin], of the positions from `begin` on of an epoch."""

    def draws(self, step: int, videos_per_step: int, first: int, last: int) -> list[Draw]:
        """Videos ``first`` ... ``last - 1`` (of 0 ... videos_per_step - 1) of a global step.

        Videos left over at an epoch's end, too few for a step, are dropped (as officially).
        """
        epoch, index = divmod(step, self.steps_per_epoch(videos_per_step))
        places = range(index * videos_per_step + first, index * videos_per_step + last)
        sources, entries = (found.tolist() for found in self.at(epoch, places.start, places.stop))
        return [*map(Draw._make, zip(repeat(step), repeat(epoch), places, sources, entries))]

    def steps_per_epoch(self, videos_per_step: int) -> int:
        """Raises ``ValueError`` where an epoch has too few draws for one step."""
        steps = self.epoch_size // videos_per_step
        if steps < 1:
            raise ValueError(
                f"an epoch of {self.epoch_size} draws is shorter than one step of "
                f"{videos_per_step} videos: take fewer videos per step (optim.videos_per_step) or "
                "longer epochs, which go through the lists more than once (data.epoch_size); of "
                "some hundred videos the recipes few_clips and few_clips_ft make a model"
            )
        return steps

    def _before(self, epoch: int) -> list[int]:
        """Draws of each source before an epoch."""
        while len(self._drawn) <= epoch:
            self._drawn.append(self._next_counts(self._drawn[-1], len(self._drawn)))
        return self._drawn[epoch]

    def _next_counts(self, before: list[int], epochs: int) -> list[int]:
        """Draws per source after ``epochs`` epochs: as near to the shares as whole numbers go."""
        ideal = [share * self.epoch_size * epochs for share in self._shares]
        after = [max(have, int(want)) for have, want in zip(before, ideal, strict=True)]
        missing = self.epoch_size * epochs - sum(after)
        while missing:
            sign = 1 if missing > 0 else -1
            candidates = [s for s in range(len(after)) if sign > 0 or after[s] > before[s]]
            # Most behind its share first when adding, most ahead first when taking away.
            chosen = max(candidates, key=lambda s: (sign * (ideal[s] - after[s]), -s))
            after[chosen] += sign
            missing -= sign
        return after


class EpochOrder(Order):
    """Every epoch's order is a table, made when the epoch begins.

    No entry is drawn a second time before every entry of its source was drawn once. It takes
    memory and time for all entries: :class:`~videomae_fast.data.keyed_order.KeyedOrder` does not.

    Args:
        lengths: entries of each source.
        shares: part of the draws per source, on any positive scale.
        epoch_size: draws per epoch.
        seed: of the order.
    """

    def __init__(
        self, lengths: Sequence[int], shares: Sequence[float], epoch_size: int, seed: int
    ) -> None:
        super().__init__(lengths, shares, epoch_size, seed)
        self._cached: tuple[int, NDArray[np.int32], NDArray[np.int64]] | None = None

    def at(self, epoch: int, begin: int, end: int) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        """See :meth:`Order.at`."""
        sources, entries = self.epoch(epoch)
        return sources[begin:end], entries[begin:end]

    def epoch(self, epoch: int) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        """Sources int32 [epoch_size] and entries int64 [epoch_size] in the epoch's order."""
        if self._cached is None or self._cached[0] != epoch:
            self._cached = (epoch, *self._make(epoch))
        return self._cached[1:]

    def _make(self, epoch: int) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        before, after = self._before(epoch), self._before(epoch + 1)
        counts = [last - first for first, last in zip(before, after, strict=True)]

        sources = np.repeat(np.arange(len(counts), dtype=np.int32), counts)
        if len(counts) > 1:
            sources = sources[permutation(self.epoch_size, self.seed, ASSIGN, epoch)]
        entries = np.empty(self.epoch_size, dtype=np.int64)
        for source, (first, last) in enumerate(zip(before, after, strict=True)):
            entries[sources == source] = self._entries(source, first, last)
        return sources, entries

    def _entries(self, source: int, first: int, last: int) -> NDArray[np.int64]:
        """Entries of draws ``first`` ... ``last - 1`` of a source, counted over the whole run."""
        length = self.lengths[source]
        parts = [np.empty(0, dtype=np.int64)]
        while first < last:
            cycle, offset = divmod(first, length)
            taken = min(last - first, length - offset)
            order = permutation(length, self.seed, PERMUTE, source, cycle)
            parts.append(order[offset : offset + taken])
            first += taken
        return np.concatenate(parts)
