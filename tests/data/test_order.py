from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from videomae_fast.data.order import EpochOrder, below, item_words, permutation

RECORDED_PERMUTATION = [0, 4, 6, 3, 5, 7, 1, 2]
RECORDED_WORDS = [5357981445697589795, 3494711856887727146]


def test_one_source_is_a_fresh_permutation_each_epoch() -> None:
    order = EpochOrder([50], [1.0], 50, seed=3)
    epochs = [order.epoch(epoch)[1].tolist() for epoch in range(4)]
    for epoch in epochs:
        assert sorted(epoch) == list(range(50))
    assert len({tuple(epoch) for epoch in epochs}) == 4


def test_nothing_is_drawn_again_before_everything_was_drawn() -> None:
    """Permutations go on across epochs that are no multiple of a source's length."""
    order = EpochOrder([7, 30], [0.5, 0.5], 11, seed=0)
    seen: dict[int, list[int]] = {0: [], 1: []}
    for epoch in range(40):
        sources, entries = order.epoch(epoch)
        for source, entry in zip(sources, entries, strict=True):
            seen[int(source)].append(int(entry))
    for source, length in enumerate(order.lengths):
        drawn = seen[source]
        assert len(drawn) == 220
        for begin in range(0, len(drawn) - length + 1, length):
            assert sorted(drawn[begin : begin + length]) == list(range(length))


@pytest.mark.parametrize(
    ("shares", "size"),
    [([0.7, 0.2, 0.1], 10), ([0.7, 0.2, 0.1], 7), ([1, 1, 1], 1), ([1e-3, 1, 5, 0.3], 3)],
)
def test_weights_are_kept_exactly(shares: list[float], size: int) -> None:
    order = EpochOrder([5] * len(shares), shares, size, seed=1)
    counts: Counter[int] = Counter()
    for epoch in range(200):
        sources, _ = order.epoch(epoch)
        assert len(sources) == size
        counts.update(sources.tolist())
        for source, share in enumerate(shares):
            ideal = share / sum(shares) * size * (epoch + 1)
            assert abs(counts[source] - ideal) <= 1.0 + 1e-9


def test_any_epoch_can_be_asked_for_first() -> None:
    shares = [0.6, 0.4]
    went_through = EpochOrder([9, 4], shares, 10, seed=5)
    for epoch in range(7):
        went_through.epoch(epoch)
    jumped = EpochOrder([9, 4], shares, 10, seed=5)
    for first, second in zip(went_through.epoch(6), jumped.epoch(6), strict=True):
        np.testing.assert_array_equal(first, second)


def test_sources_are_mixed_anew_each_epoch() -> None:
    order = EpochOrder([40, 40], [1.0, 1.0], 80, seed=0)
    mixes = [order.epoch(epoch)[0].tolist() for epoch in range(3)]
    assert len({tuple(mix) for mix in mixes}) == 3
    assert all(max(mix[:40].count(0), mix[:40].count(1)) < 35 for mix in mixes)


def test_seeds_differ() -> None:
    first, second = (EpochOrder([40], [1.0], 40, seed=seed).epoch(0)[1] for seed in (0, 1))
    assert first.tolist() != second.tolist()


def test_steps_take_slices_and_drop_the_rest() -> None:
    order = EpochOrder([10], [1.0], 10, seed=0)
    assert order.steps_per_epoch(4) == 2
    draws = order.draws(3, 4, 1, 3)
    assert [(d.step, d.epoch, d.position) for d in draws] == [(3, 1, 5), (3, 1, 6)]
    assert [d.entry for d in draws] == order.epoch(1)[1][5:7].tolist()
    with pytest.raises(ValueError, match="shorter than one step"):
        order.steps_per_epoch(11)


def test_the_random_stream_never_changes() -> None:
    """Recorded: another stream would change every run that resumes."""
    assert permutation(8, 0, 2, 0, 0).tolist() == RECORDED_PERMUTATION
    assert item_words(0, 1, 2, 2) == RECORDED_WORDS


def test_below_covers_its_range() -> None:
    assert below(0, 13) == 0
    assert below(2**64 - 1, 13) == 12
    counts = Counter(below(word, 13) for word in item_words(0, 0, 0, 13_000))
    assert set(counts) == set(range(13))
    assert max(abs(count - 1000) for count in counts.values()) < 200


@pytest.mark.parametrize(
    ("lengths", "size", "seed"), [([0], 1, 0), ([], 1, 0), ([3], 0, 0), ([3], 3, -1)]
)
def test_impossible(lengths: list[int], size: int, seed: int) -> None:
    with pytest.raises(ValueError, match=r"source|epoch_size"):
        EpochOrder(lengths, [1.0] * len(lengths), size, seed)
