"""Random numbers that depend on a key alone, and stay the same in all versions of numpy."""

from __future__ import annotations

import math

import numpy as np


class Randomness:
    """A stream of draws. Raw words of PCG64 seeded through SeedSequence are guaranteed to stay what
    they are; numpy's distributions are not, so these are made here.

    Args:
        key: integers, at least 0.
    """

    def __init__(self, *key: int) -> None:
        self._words = np.random.PCG64(np.random.SeedSequence(key))

    def word(self) -> int:
        """64 random bits."""
        return int(self._words.random_raw())

    def uniform(self, low: float = 0.0, high: float = 1.0) -> float:
        """Evenly between `low` and `high`; 2**53 places, `high` not among them."""
        return low + (high - low) * ((self.word() >> 11) * 2.0**-53)

    def below(self, bound: int) -> int:
        """0 to ``bound - 1``, evenly to within ``bound / 2**64``."""
        return (self.word() * bound) >> 64

    def chance(self, probability: float) -> bool:
        """True with this probability."""
        return self.uniform() < probability

    def normal(self, mean: float = 0.0, deviation: float = 1.0) -> float:
        """Normally distributed (Box and Muller)."""
        radius = math.sqrt(-2.0 * math.log(1.0 - self.uniform()))
        return mean + deviation * radius * math.cos(2.0 * math.pi * self.uniform())

    def beta(self, alpha: float) -> float:
        """From Beta(alpha, alpha), by Jöhnk's rejection.

        Raises:
            ValueError: an alpha that is not above 0 and at most 8: beyond that nearly all tries
                are rejected, and mixing halves would do as well.
        """
        if not 0 < alpha <= 8:
            raise ValueError(f"alpha ({alpha}) must be above 0 and at most 8")
        if alpha == 1.0:
            return self.uniform()
        while True:
            x: float = self.uniform() ** (1.0 / alpha)
            y: float = self.uniform() ** (1.0 / alpha)
            if 0.0 < x + y <= 1.0:
                return x / (x + y)
