"""Draws have their distributions, and stay what they are."""

from __future__ import annotations

import math

import numpy as np
import pytest

from videomae_fast.data.randomness import Randomness


def test_draws_depend_on_the_key_alone() -> None:
    # Written down: another numpy must give the same.
    stream = Randomness(1, 2, 3)
    assert [stream.below(1000) for _ in range(5)] == FIRST
    assert Randomness(1, 2, 4).word() != Randomness(1, 2, 3).word()


FIRST = [670, 111, 511, 356, 704]


@pytest.mark.parametrize("alpha", [0.2, 0.8, 1.0, 2.0, 6.0])
def test_beta(alpha: float) -> None:
    stream = Randomness(5)
    draws = np.array([stream.beta(alpha) for _ in range(4000)])
    assert draws.min() >= 0
    assert draws.max() <= 1
    variance = 1 / (4 * (2 * alpha + 1))
    assert abs(draws.mean() - 0.5) < 4 * math.sqrt(variance / 4000)
    assert abs(draws.var() / variance - 1) < 0.1


def test_normal_and_uniform() -> None:
    stream = Randomness(6)
    normal = np.array([stream.normal(7, 0.5) for _ in range(4000)])
    assert abs(normal.mean() - 7) < 0.04
    assert abs(normal.std() - 0.5) < 0.03
    assert 0.03 < (np.abs(normal - 7) > 1).mean() < 0.065
    uniform = np.array([stream.uniform(-1, 3) for _ in range(4000)])
    assert -1 <= uniform.min() < -0.98
    assert 2.98 < uniform.max() < 3


@pytest.mark.parametrize("alpha", [0.0, -1.0, 9.0, float("nan")])
def test_alphas_that_can_not_be_drawn_from(alpha: float) -> None:
    with pytest.raises(ValueError, match="alpha"):
        Randomness(0).beta(alpha)
