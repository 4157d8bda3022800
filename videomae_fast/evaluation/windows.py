"""Windows of frames that slide over a video; each frame is made once, however many share it."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal

from torch import Tensor

Short = Literal["pad", "report"]


@dataclass(frozen=True)
class WindowRule:
    """Which frames the windows of a video have.

    Attributes:
        stride: frames from the start of one window to that of the next.
        length: frames of a window.
        frame_stride: from one frame of a window to the next.
        short: of a video with fewer frames than a window spans: "pad" gives one window whose
            missing frames repeat the last, "report" gives none.

    Raises:
        ValueError: a number below 1, or an unknown word.

    Source: extract_tad_feature.py of the official V2 code, for windows of 16 frames.
    """

    stride: int = 16
    length: int = 16
    frame_stride: int = 1
    short: Short = "pad"

    def __post_init__(self) -> None:
        for name in ("stride", "length", "frame_stride"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")
        if self.short not in ("pad", "report"):
            raise ValueError(f"short is {self.short!r}: pad or report")

    @property
    def span(self) -> int:
        """Frames from a window's first to its last, both counted."""
        return (self.length - 1) * self.frame_stride + 1

    def count(self, frame_count: int) -> int:
        """Windows of a video; what is left behind the last whole one is dropped."""
        if frame_count < self.span:
            return int(self.short == "pad" and frame_count > 0)
        return (frame_count - self.span) // self.stride + 1

    def pads(self, frame_count: int) -> bool:
        """Whether the video's one window has repeated frames."""
        return frame_count < self.span and self.short == "pad"

    def ids(self, frame_count: int, window: int) -> list[int]:
        """Frame numbers of a window, counted from 0."""
        first = window * self.stride
        return [min(first + i * self.frame_stride, frame_count - 1) for i in range(self.length)]

    def needed(self, frame_count: int) -> Iterator[int]:
        """The frames of all windows, ascending, each once."""
        count = self.count(frame_count)
        if frame_count < self.span:
            yield from sorted(set(self.ids(frame_count, 0))) if count else ()
            return
        for number in range(min(frame_count, (count - 1) * self.stride + self.span)):
            last = min(number // self.stride, count - 1)
            first = max(0, -((self.span - 1 - number) // self.stride))
            if any(
                (number - window * self.stride) % self.frame_stride == 0
                for window in range(first, last + 1)
            ):
                yield number

    def centres(self, frame_count: int, fps: float) -> list[float]:
        """Middle of each window in seconds; of 16 consecutive frames, (start + 8) / fps."""
        half = self.span / 2
        return [(i * self.stride + half) / fps for i in range(self.count(frame_count))]


PRESETS: Final = {"thumos14": WindowRule(stride=4), "fineaction": WindowRule(stride=16)}
"""The windows of the released features for temporal detection."""


def sliding(frames: Iterator[Tensor], rule: WindowRule, frame_count: int) -> Iterator[list[Tensor]]:
    """The frames of each window, in order.

    No more frames are held than a window spans.

    Args:
        frames: one for each number of ``rule.needed(frame_count)``, in that order.
        rule: of the windows.
        frame_count: of the video.

    Yields:
        ``rule.length`` frames; windows share them.
    """
    numbers = rule.needed(frame_count)
    held: deque[tuple[int, Tensor]] = deque()
    for window in range(rule.count(frame_count)):
        ids = rule.ids(frame_count, window)
        while held and held[0][0] < ids[0]:
            held.popleft()
        while not held or held[-1][0] < ids[-1]:
            held.append((next(numbers), next(frames)))
        by_number = dict(held)
        yield [by_number[number] for number in ids]
