"""What a long run tells its user: durations, sizes, and one line that is kept up."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Final, TextIO

_TERMINAL_SECONDS: Final = 0.2
_LOG_SECONDS: Final = 30.0


def duration(seconds: float) -> str:
    """``1:02:03``, with days in front where there are any."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    return (f"{days}d " if days else "") + f"{hours}:{minutes:02}:{rest:02}"


def size_text(number: float) -> str:
    """Bytes for people."""
    for unit in ("B", "kB", "MB", "GB"):
        if number < 1000:
            return f"{number:.3g} {unit}"
        number /= 1000
    return f"{number:,.1f} TB"


class ProgressLine:
    """``done/total``, speed and time left: one line rewritten on a terminal, else one in 30 s.

    total: number of items; unit: what they are, in the plural; stream: where to write (standard
    error by default, so that standard output holds results only).
    """

    def __init__(
        self,
        total: int,
        unit: str,
        *,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._stream = sys.stderr if stream is None else stream
        self._terminal = self._stream.isatty()
        self._total, self._unit, self._clock = total, unit, clock
        self._start = self._shown = clock()
        self._width = 0

    def update(self, done: int, **counts: int) -> None:
        """Shows that ``done`` items are done; ``counts`` are further totals.

        A count whose name ends in ``_per_s`` is shown as a speed since the start.
        """
        now = self._clock()
        if now - self._shown >= (_TERMINAL_SECONDS if self._terminal else _LOG_SECONDS):
            self._shown = now
            self._show(self.line(done, **counts))

    def finish(self, done: int, **counts: int) -> None:
        """Shows the last line."""
        self._show(self.line(done, **counts))
        if self._terminal:
            self._stream.write("\n")
            self._stream.flush()

    def line(self, done: int, **counts: int) -> str:
        """The line, without its end."""
        seconds = max(self._clock() - self._start, 1e-9)
        left = duration((self._total - done) * seconds / done) if done else "?"
        parts = [f"{self._unit} {done}/{self._total}", f"{done / seconds:.1f} {self._unit}/s"]
        for name, count in counts.items():
            if name.endswith("_per_s"):
                parts.append(f"{count / seconds:.0f} {name.removesuffix('_per_s')}/s")
            else:
                parts.append(f"{name} {count}")
        return "  ".join([*parts, f"ETA {left}"])

    def _show(self, line: str) -> None:
        if self._terminal:  # spaces cover what is left of a longer line
            self._stream.write("\r" + line.ljust(self._width))
            self._width = len(line)
        else:
            self._stream.write(line + "\n")
        self._stream.flush()
