"""The progress line: rewritten on a terminal, rare elsewhere."""

from __future__ import annotations

import io
from itertools import pairwise

import pytest

from videomae_fast.progress import ProgressLine, duration


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0, "0:00:00"), (59.6, "0:01:00"), (3723, "1:02:03"), (90061, "1d 1:01:01")],
)
def test_duration(seconds: float, shown: str) -> None:
    assert duration(seconds) == shown


def test_line() -> None:
    clock = Clock()
    line = ProgressLine(40, "files", stream=io.StringIO(), clock=clock)
    assert line.line(0).endswith("ETA ?")
    clock.now += 20
    expected = "files 10/40  0.5 files/s  200 frames/s  bad 2  ETA 0:01:00"
    assert line.line(10, frames_per_s=4000, bad=2) == expected


def run(stream: io.StringIO) -> str:
    """A thousand files in 125 seconds."""
    clock = Clock()
    line = ProgressLine(1000, "files", stream=stream, clock=clock)
    for done in range(1, 1001):
        clock.now += 0.125
        line.update(done, bad=0 if done > 500 else 100)
    line.finish(1000, bad=0)
    return stream.getvalue()


def test_a_log_gets_a_line_now_and_then() -> None:
    text = run(io.StringIO())
    assert "\r" not in text
    assert [line.split()[1] for line in text.splitlines()] == [
        "240/1000", "480/1000", "720/1000", "960/1000", "1000/1000"
    ]  # fmt: skip


def test_a_terminal_gets_one_line_rewritten_and_covered() -> None:
    text = run(Terminal())
    assert text.count("\n") == 1
    assert text.endswith("\n")
    pieces = text.rstrip("\n").split("\r")
    assert len(pieces) == 502  # every second update, the last line, what is before the first
    for before, after in pairwise(pieces):
        assert len(after) >= len(before.rstrip())
