"""The order that is computed at its place: permutations, shares, blocks."""

from __future__ import annotations

import time
import tracemalloc
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest

from videomae_fast.data.bijection import TABLED, Bijection, BlockShuffle
from videomae_fast.data.keyed_order import KeyedOrder
from videomae_fast.data.loader.pipeline import StepDraws
from videomae_fast.data.order import Draw, EpochOrder

MANY = 1_000_003
RECORDED = [667475, 879288, 349464, 507504]  # Bijection(MANY, 1, 2) at 0 ... 3


@pytest.mark.parametrize("count", [1, 2, 3, 1000, TABLED, TABLED + 1, 2**18, 2**18 + 1, MANY])
def test_each_is_there_once(count: int) -> None:
    found = Bijection(count, 7)(np.arange(count))
    np.testing.assert_array_equal(np.sort(found), np.arange(count))


@pytest.mark.parametrize(
    ("count", "block", "window"),
    [(1, 2, 3), (5, 16, 64), (1000, 16, 64), (1000, 16, 4), (100_001, 16, 64), (9999, 7, 1)],
)
def test_each_is_there_once_in_blocks(count: int, block: int, window: int) -> None:
    found = BlockShuffle(count, block, window, 7)(np.arange(count))
    np.testing.assert_array_equal(np.sort(found), np.arange(count))
    if count > 999:
        assert (np.diff(found) == 1).mean() < 0.2  # within a block, too, the order is random
        blocks = [
            set(found[i : i + block * window] // block) for i in range(0, count, block * window)
        ]
        assert sum(map(len, blocks)) == -(-count // block)  # each is read in one window


def test_the_order_never_changes() -> None:
    """Recorded: another one would change every run that resumes."""
    assert Bijection(MANY, 1, 2)(np.arange(4)).tolist() == RECORDED


def test_it_looks_random() -> None:
    """Chi-square of where a stretch of places falls; correlation with earlier places."""
    count, buckets = 2**30 + 17, 64
    for start in (0, count - 65_536):
        found = Bijection(count, 3, start)(np.arange(start, start + 65_536))
        seen = np.bincount(found * buckets // count, minlength=buckets)
        expected = len(found) / buckets
        assert ((seen - expected) ** 2 / expected).sum() < 120  # 63 degrees of freedom: p = 2e-5
        parity = np.bincount(found & 63, minlength=64)
        assert ((parity - 1024) ** 2 / 1024).sum() < 120
        for lag in (1, 2, 3, 16, 1024):
            assert abs(np.corrcoef(found[:-lag], found[lag:])[0, 1]) < 5 / np.sqrt(len(found))
        other = Bijection(count, 4, start)(np.arange(start, start + 65_536))
        assert abs(np.corrcoef(found, other)[0, 1]) < 5 / np.sqrt(len(found))


def test_a_short_list_has_the_order_it_always_had() -> None:
    one, two = EpochOrder([50], [1.0], 35, seed=3), KeyedOrder([50], [1.0], 35, seed=3)
    for step in range(40):
        assert one.draws(step, 5, 0, 5) == two.draws(step, 5, 0, 5)


@pytest.mark.parametrize("block", [1, 4])
def test_shares_and_times_through(block: int) -> None:
    lengths, shares = [100_000, 2000, 30], [0.7, 0.2, 0.1]
    order = KeyedOrder(lengths, shares, 4000, seed=1, block=block)
    seen: list[Counter[int]] = [Counter() for _ in lengths]
    for epoch in range(5):
        sources, entries = order.at(epoch, 0, 4000)
        np.testing.assert_array_equal(np.bincount(sources), [2800, 800, 400])
        for first in range(0, 4000, 500):
            part = np.bincount(sources[first : first + 500], minlength=3) / 500
            np.testing.assert_allclose(part, shares, atol=0.06)
        for source, entry in zip(sources.tolist(), entries.tolist(), strict=True):
            seen[source][entry] += 1
    assert max(seen[0].values()) == 1
    assert set(seen[1].values()) == {2}  # 4,000 draws of 2,000
    assert set(seen[2]) == set(range(30))
    assert max(seen[2].values()) - min(seen[2].values()) <= 1


def test_any_place_can_be_asked_for_first() -> None:
    lengths, shares = [10**6, 77, 10**5], [0.5, 0.2, 0.3]
    order = KeyedOrder(lengths, shares, 10_000, seed=5, block=8)
    sources, entries = order.at(7, 0, 10_000)
    jumped = KeyedOrder(lengths, shares, 10_000, seed=5, block=8)
    for begin, end in ((9_990, 10_000), (0, 3), (1020, 1030)):
        for found, all_of_it in zip(jumped.at(7, begin, end), (sources, entries), strict=True):
            np.testing.assert_array_equal(found, all_of_it[begin:end])


def test_a_billion_entries_cost_no_more() -> None:
    tracemalloc.start()
    order = KeyedOrder([10**9, 3 * 10**6], [0.9, 0.1], 10**9, seed=0, block=16)
    begin = time.process_time()
    for step in range(5):
        draws = order.draws(100_000 + step, 2048, 0, 2048)
    seconds = (time.process_time() - begin) / 5
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len({draw.entry for draw in draws if draw.source == 0}) > 1800
    assert max(draw.entry for draw in draws) < 10**9
    assert peak < 20e6
    assert seconds < 0.2  # a few milliseconds; a table would take minutes


def test_blocks_are_read_once_and_mixed() -> None:
    order = KeyedOrder([100_000], [1.0], 100_000, seed=2, block=16, window=64)
    _, entries = order.at(0, 0, 4096)
    opened = [set((entries[i : i + 1024] // 16).tolist()) for i in range(0, 4096, 1024)]
    assert all(len(blocks) == 64 for blocks in opened)
    assert not set.intersection(*opened)
    distance, share = order.mixing(1024)
    assert distance == pytest.approx(1024 / 3, rel=0.1)  # of two uniform places in a window
    assert 12 / 1024 <= share <= 16 / 1024


@pytest.mark.parametrize("kind", [EpochOrder, KeyedOrder])
def test_any_number_of_processes_makes_the_same_steps(
    kind: type[EpochOrder] | type[KeyedOrder],
) -> None:
    """Though 7 videos divide by none of them, and a run may begin anywhere."""
    order = kind([100, 30], [0.7, 0.3], 60, seed=3)
    dataset = SimpleNamespace(order=order)

    def steps(world: int, micro: int) -> list[list[Draw]]:
        ranks = [list(StepDraws(dataset, 7, micro, range(5, 21), r, world)) for r in range(world)]
        return [
            [draw for rank in ranks for part in rank[s * micro : (s + 1) * micro] for draw in part]
            for s in range(16)
        ]

    expected = steps(1, 1)
    assert all(len({draw.position for draw in step}) == 7 for step in expected)
    for world in (2, 3, 4):
        for micro in (1, 2):
            assert steps(world, micro) == expected


def test_impossible() -> None:
    with pytest.raises(ValueError, match="fewer than"):
        KeyedOrder([10**10, 5], [1, 1], 2**32, 0)
    with pytest.raises(ValueError, match="at least 1"):
        KeyedOrder([10], [1], 10, 0, block=0)
