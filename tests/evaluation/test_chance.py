"""What an accuracy says about guessing, also of a handful of videos."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest

from videomae_fast.evaluation.chance import by_guessing, verdict


@pytest.mark.parametrize(("count", "classes"), [(1, 2), (2, 4), (9, 3), (40, 174)])
def test_the_probability_is_the_exact_one(count: int, classes: int) -> None:
    chance = Fraction(1, classes)
    for right in range(count + 1):
        exact = sum(
            math.comb(count, k) * chance**k * (1 - chance) ** (count - k)
            for k in range(right, count + 1)
        )
        assert by_guessing(right, count, float(chance)) == pytest.approx(float(exact), rel=1e-9)


@pytest.mark.parametrize(
    ("accuracy", "count", "chance", "told"),
    [
        (0.5, 2, 0.25, "too few"),  # one of two: guessing gives that or more in 44 of 100 tests
        (1.0, 2, 0.25, "too few"),  # both: still in 6 of 100
        (1.0, 3, 0.25, "better"),
        (0.0, 3, 0.25, "too few"),
        (0.0, 16, 0.5, "guessing"),  # worse: the classes are in another order
        (0.5, 16, 0.5, "too few"),
        (0.25, 24, 0.25, "guessing"),
        (0.0, 24, 0.25, "guessing"),
        (0.5, 24, 0.25, "better"),
        (0.0026, 19_404, 1 / 400, "guessing"),  # of many, two standard errors
        (0.0034, 19_404, 1 / 400, "better"),
        (1.0, 10, 1.0, "guessing"),
    ],
)
def test_the_verdict(accuracy: float, count: int, chance: float, told: str) -> None:
    assert verdict(accuracy, count, chance) == told


def test_guessing_is_seldom_called_better() -> None:
    """The rate of false alarms, which two standard errors exceed for few videos."""
    for count in range(1, 60):
        for classes in (2, 4, 10, 400):
            least = next(
                (k for k in range(count + 1) if verdict(k / count, count, 1 / classes) == "better"),
                None,
            )
            if least is not None:
                assert by_guessing(least, count, 1 / classes) < 0.025
