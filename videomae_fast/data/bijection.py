"""Permutations that are computed and not stored: any place of any of them, in constant time."""

from __future__ import annotations

from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from videomae_fast.data.order import permutation, random_words

ROUNDS: Final = 6
TABLED: Final = 1 << 16
"""Entries up to which a permutation is a table: a network over so few of them shuffles less well
than a sort of random words."""

_SHIFTS: Final = tuple(np.uint64(shift) for shift in (30, 27, 31))
_FACTORS: Final = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))


class Bijection:
    """A permutation of 0 ... count - 1 that depends on the key alone.

    A balanced Feistel network of six rounds over the smallest even number of bits that holds
    `count`; what it maps beyond `count` is mapped again until it falls below (cycle walking), at
    most four times on average. The words of the rounds come from :func:`random_words`, the function
    of a round is the finaliser of SplitMix64, so the permutation is the same in all versions.

    Args:
        count: at least 1.
        key: integers >= 0.
    """

    def __init__(self, count: int, *key: int) -> None:
        self.count = count
        self._half = np.uint64(((count - 1).bit_length() + 1) // 2)
        self._mask = np.uint64((1 << int(self._half)) - 1)
        self._words = random_words(ROUNDS, *key)
        self._table = permutation(count, *key) if count <= TABLED else None

    def __call__(self, places: NDArray[np.int64]) -> NDArray[np.int64]:
        """The entries at some places, both int64 of one shape and within 0 ... count - 1."""
        if self._table is not None:
            return self._table[places]
        found = self._network(places.astype(np.uint64))
        beyond = np.flatnonzero(found >= self.count)
        while len(beyond):
            found[beyond] = self._network(found[beyond])
            beyond = beyond[found[beyond] >= self.count]
        return found.astype(np.int64)

    def _network(self, values: NDArray[np.uint64]) -> NDArray[np.uint64]:
        left, right = values >> self._half, values & self._mask
        for word in self._words:
            left, right = right, left ^ (_mixed(right + word) & self._mask)
        return (left << self._half) | right


class BlockShuffle:
    """A permutation that keeps neighbours near each other, for storage that is read in blocks.

    The blocks (`block` neighbouring entries each) are permuted; then the draws of each `window`
    blocks that follow one another are. So a reader of the draws in order has at most a window of
    blocks open, and reads each of them once. What the store puts into one block should be random
    already: `store import --shuffle` writes it so.

    Args:
        count: entries, at least 1.
        block: entries that are read together.
        window: blocks whose draws are mixed.
        key: integers >= 0.
    """

    def __init__(self, count: int, block: int, window: int, *key: int) -> None:
        self.count = count
        self.block = block
        self._run = block * window
        self._full = count // block
        self._order = Bijection(max(self._full, 1), *key, 0)
        self._key = (*key, 1)

    def __call__(self, places: NDArray[np.int64]) -> NDArray[np.int64]:
        """The entries at some places, both int64 [N] and within 0 ... count - 1."""
        windows, offsets = np.divmod(places, self._run)
        for window in np.unique(windows):
            inside = windows == window
            size = min(self._run, self.count - int(window) * self._run)
            offsets[inside] = _within(size, *self._key, int(window))(offsets[inside])
        blocks, rest = np.divmod(windows * self._run + offsets, self.block)
        full = blocks < self._full  # what fills no block stays at the end
        blocks[full] = self._order(blocks[full])
        return blocks * self.block + rest


@lru_cache(maxsize=64)
def _within(count: int, *key: int) -> Bijection:
    """The permutation within a window; a step's draws fall into few of them."""
    return Bijection(count, *key)


def _mixed(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """SplitMix64's finaliser, modulo 2**64."""
    values = (values ^ (values >> _SHIFTS[0])) * _FACTORS[0]
    values = (values ^ (values >> _SHIFTS[1])) * _FACTORS[1]
    mixed: NDArray[np.uint64] = values ^ (values >> _SHIFTS[2])
    return mixed
