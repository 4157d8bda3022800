"""Validations of a detection run: how good, whether better than before."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from videomae_fast.data.errors import ListError
from videomae_fast.data.files import write_lines
from videomae_fast.evaluation.detection import KeyFrameScores
from videomae_fast.tasks.validation import FILE


@dataclass(frozen=True)
class Validated:
    """A line of ``validation.jsonl``.

    Attributes:
        step: steps done.
        mean: mean average precision at an IoU of 0.5, 0 to 1; None where nothing could be read.
        loss: cross-entropy of a box; None where no box that was looked at is annotated.
        key_frames, boxes, failed: that were read, their boxes, and that could not be read.
        best: better than all before.
    """

    step: int
    mean: float | None
    loss: float | None
    key_frames: int
    boxes: int
    failed: int
    best: bool = False

    def __str__(self) -> str:
        if self.mean is None:
            return f"none of {self.failed} key frames could be read"
        loss = "" if self.loss is None else f", loss {self.loss:.4f}"
        failed = f", {self.failed} could not be read" if self.failed else ""
        read = f"{self.boxes} boxes in {self.key_frames} key frames{failed}"
        return f"mAP {self.mean:.2%}{loss} ({read})"


def validated(step: int, mean: float | None, scored: Iterable[KeyFrameScores]) -> Validated:
    """The numbers of scores; sums go in the order of the lists, whatever read them."""
    every = sorted(scored, key=lambda one: one.place)
    read = [one for one in every if one.failure is None]
    losses = [(one.loss, len(one.scores)) for one in read if not math.isnan(one.loss)]
    boxes = sum(count for _, count in losses)
    return Validated(
        step,
        mean if read else None,
        math.fsum(loss for loss, _ in losses) / boxes if boxes else None,
        len(read),
        sum(len(one.scores) for one in read),
        len(every) - len(read),
    )


class DetectionHistory:
    """``validation.jsonl``, a line per validation; lines of steps that are made again are dropped.

    Args:
        folder: of the run.

    Raises:
        ListError: a line that can't be read.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / FILE
        lines = self.path.read_text(encoding="utf-8").splitlines() if self.path.exists() else []
        self.every = [self._read(number, line) for number, line in enumerate(lines, 1)]

    def before(self, step: int) -> list[Validated]:
        """Those up to, and not with, this number of steps."""
        return [one for one in self.every if one.step < step]

    def add(self, now: Validated) -> Validated:
        """Notes one, says whether it is the best, and writes the file anew, whole."""
        kept = self.before(now.step)
        most = max((one.mean for one in kept if one.mean is not None), default=-1.0)
        now = Validated(**{**asdict(now), "best": now.mean is not None and now.mean > most})
        self.every = [*kept, now]
        write_lines(self.path, [json.dumps(asdict(one)) + "\n" for one in self.every])
        return now

    def _read(self, number: int, line: str) -> Validated:
        try:
            return Validated(**json.loads(line))
        except (ValueError, TypeError) as error:
            raise ListError(
                f"{self.path}:{number}: found {line[:80]!r}, expected a validation as JSON; move "
                "the file away to start a new one"
            ) from error


def waited(every: Sequence[Validated]) -> int:
    """Validations since the best one."""
    best = max((i for i, one in enumerate(every) if one.best), default=-1)
    return len(every) - 1 - best
