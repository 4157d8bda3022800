"""Probes learn what can be learnt, and say so where nothing is."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from videomae_fast.evaluation.probes import (
    DECAYS,
    RATES,
    attentive_probe,
    chance_warning,
    linear_probe,
    nearest_neighbours,
)


def clusters(count: int, seed: int, *, spread: float = 0.5) -> tuple[Tensor, Tensor]:
    """Features [count, 16] of 5 classes around own centres, off zero and unlike in scale."""
    centres = torch.randn(5, 16, generator=torch.Generator().manual_seed(9))
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(5, (count,), generator=generator)
    noise = spread * torch.randn(count, 16, generator=generator)
    return 30 + (centres[labels] + noise) * torch.logspace(-2, 2, 16), labels


def test_a_linear_probe_tries_every_pair_and_keeps_the_best() -> None:
    train, labels = clusters(200, 0)
    other, other_labels = clusters(100, 1)
    found = linear_probe(train, labels, other, other_labels, batch=64)
    assert len(found.scores) == 20
    assert {(s.learning_rate, s.weight_decay) for s in found.scores} == {
        (rate, decay) for rate in RATES for decay in DECAYS
    }
    assert [s.accuracy for s in found.scores] == sorted(
        (s.accuracy for s in found.scores), reverse=True
    )
    assert found.best.accuracy > 0.95
    assert found.warning is None
    with torch.no_grad():  # the head takes features as they are stored
        accuracy = float((found.head(other).argmax(1) == other_labels).float().mean())
    assert accuracy == pytest.approx(found.best.accuracy)


def test_heads_learn_together_as_they_would_alone() -> None:
    """The same weights as a plain loop with one head, rate and decay."""
    train, labels = clusters(90, 0)
    rates, decays = (3e-2, 1e-3), (0.1,)
    many = linear_probe(
        train, labels, train, labels, rates=rates, decays=decays, epochs=3, batch=40
    )
    assert isinstance(many.head, nn.Sequential)
    inputs = (train - train.mean(0)) / train.std(0, correction=0)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        head = nn.Linear(16, 5)
    optimizer = torch.optim.AdamW(head.parameters(), lr=many.best.learning_rate, weight_decay=0.1)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 9)
    order = torch.Generator().manual_seed(0)
    for _ in range(3):
        for index in torch.randperm(90, generator=order).split(40):
            optimizer.zero_grad()
            F.cross_entropy(head(inputs[index]), labels[index]).backward()
            optimizer.step()
            schedule.step()
    torch.testing.assert_close(many.head[1].weight, head.weight, atol=1e-5, rtol=1e-4)


def test_an_attentive_probe_finds_the_one_token_that_tells() -> None:
    def made(count: int, seed: int) -> tuple[Tensor, Tensor]:
        """Tokens of noise, one of which, anywhere, is marked and shows the class."""
        generator = torch.Generator().manual_seed(seed)
        tokens = 0.3 * torch.randn(count, 6, 8, generator=generator)
        labels = torch.randint(3, (count,), generator=generator)
        place = torch.randint(6, (count,), generator=generator)
        tokens[torch.arange(count), place, labels] += 3
        return tokens, labels

    train, labels = made(150, 0)
    other, other_labels = made(60, 1)
    found = attentive_probe(
        train, labels, other, other_labels, heads=2, depth=2, rates=(1e-2, 1e-5), decays=(0.01,),
        epochs=8, batch=25,
    )  # fmt: skip
    assert found.best.accuracy > 0.9
    assert found.best.learning_rate == 1e-2
    assert found.warning is None


def test_neighbours_vote_by_their_similarity() -> None:
    features = torch.tensor([[1.0, 0.0], [2.0, 0.2], [0.0, 1.0], [0.0, 3.0]])
    labels = torch.tensor([0, 0, 1, 2])
    votes = nearest_neighbours(features, labels, torch.tensor([[5.0, 0.1], [0.0, 9.0]]), k=3)
    assert votes.shape == (2, 3)
    torch.testing.assert_close(votes.sum(1), torch.ones(2))
    assert votes[0].argmax() == 0
    torch.testing.assert_close(votes[1, 1], votes[1, 2])  # equally near
    one = nearest_neighbours(features, labels, features, k=1)
    assert one.argmax(1)[:2].tolist() == [0, 0]
    every = nearest_neighbours(features, labels, features, k=99, chunk=1)
    torch.testing.assert_close(every, nearest_neighbours(features, labels, features, k=4))


def test_neighbours_learn_clusters() -> None:
    train, labels = clusters(200, 0)
    other, other_labels = clusters(80, 1)
    scale = train.std(0)
    votes = nearest_neighbours((train - 30) / scale, labels, (other - 30) / scale)
    assert float((votes.argmax(1) == other_labels).float().mean()) > 0.9


def test_chance_is_told_with_what_to_look_at() -> None:
    train, labels = clusters(100, 0)
    other, other_labels = clusters(100, 1)
    shifted = (other_labels + 1) % 5  # another order of the classes
    found = linear_probe(train, labels, other, shifted, rates=(1e-2,), decays=(0.1,), epochs=5)
    assert found.warning is not None
    for cause in ("same order", "normalised", "loaded"):
        assert cause in found.warning
    assert "chance level" in str(chance_warning(0.6, torch.tensor([0] * 24 + [1] * 16), 2))
    assert "too few" in str(chance_warning(0.6, torch.tensor([0] * 6 + [1] * 4), 2))
    assert chance_warning(0.99, torch.arange(100) % 4, 4) is None


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"labels": torch.tensor([0, 1])}, r"\[4, 3\] and \[2\] labels"),
        ({"validation": torch.ones(2, 7)}, r"training features are \[4, 3\], the others \[2, 7\]"),
        ({"classes": 1}, "labels go from 0 to 1, for 1 classes"),
        ({"rates": ()}, "a probe needs a learning rate"),
        ({"features": torch.full((4, 3), torch.nan)}, "not finite"),
    ],
)
def test_refusals(change: dict[str, Tensor], told: str) -> None:
    given = {
        "features": torch.ones(4, 3),
        "labels": torch.tensor([0, 1, 0, 1]),
        "validation": torch.ones(2, 3),
        "validation_labels": torch.tensor([0, 1]),
    }
    with pytest.raises(ValueError, match=told):
        linear_probe(**{**given, **change})
