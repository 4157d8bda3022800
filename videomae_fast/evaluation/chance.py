"""Whether guessing alone gives as many right answers, by the binomial distribution itself.

The normal approximation (two standard errors) is wrong for few answers: of two among four classes
it takes one right one for a sign of guessing, which says nothing either way.
"""

from __future__ import annotations

import math
from typing import Final, Literal

_RARE: Final = 0.025  # what two standard errors are for many answers


def by_guessing(right: int, count: int, chance: float) -> float:
    """The probability that guessing gives so many right answers, or more.

    Args:
        right: answers, 0 to `count`.
        count: of all.
        chance: of one to be right, between 0 and 1.
    """
    if right <= 0 or chance >= 1:
        return 1.0
    of_all, hit, miss = math.lgamma(count + 1), math.log(chance), math.log1p(-chance)
    terms = (
        math.exp(
            of_all - math.lgamma(k + 1) - math.lgamma(count - k + 1) + k * hit + (count - k) * miss
        )
        for k in range(right, count + 1)
    )
    return min(1.0, math.fsum(terms))


def verdict(accuracy: float, count: int, chance: float) -> Literal["better", "guessing", "too few"]:
    """What an accuracy says about guessing.

    Args:
        accuracy: share of right answers.
        count: of answers, at least 1.
        chance: of a guess to be right, between 0 and 1.

    Returns:
        "better": guessing gives so much or more in fewer than 2.5 of 100 tests. "too few": one who
        knows half of what guessing gets wrong could not be told from it either. Else "guessing",
        and where there is so little that guessing does better in all but 2.5 of 100 tests.
    """
    right = round(accuracy * count)
    if by_guessing(right, count, chance) < _RARE:
        return "better"
    if chance >= 1 or by_guessing(right + 1, count, chance) > 1 - _RARE:  # one class alone; worse
        return "guessing"
    knowing = math.ceil(count * (1 + chance) / 2)
    return "guessing" if by_guessing(knowing, count, chance) < _RARE else "too few"
