"""A clock that stands still while the whole job does."""

from __future__ import annotations

import time
from collections.abc import Callable


class RunningClock:
    """Seconds in which this process ran, and with it those that it started.

    A job that is stopped (SIGSTOP, a scheduler, a machine that is paused) computes nothing, and no
    time limit may go on: others' clocks do. Who looks at this clock every ``tick`` seconds sees a
    stop as a long gap between two looks, of which two ticks count.
    """

    def __init__(self, tick: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.tick = tick
        self._clock = clock
        self._last = clock()
        self._ran = 0.0

    def now(self) -> float:
        """Seconds since the clock was made."""
        now = self._clock()
        self._ran += min(now - self._last, 2 * self.tick)
        self._last = now
        return self._ran
