"""Validations of a detection run: how good, whether better than before."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from videomae_fast.evaluation.detection import KeyFrameScores
from videomae_fast.tasks.history import Validations


@dataclass(frozen=True)
class Validated:
    """A line of ``validation.jsonl``.

    Attributes:
        step: steps done.
        mean: mean average precision at an IoU of 0.5, 0 to 1; None where nothing that is annotated
            could be read.
        loss: cross-entropy of a box; None where no box that was looked at is annotated.
        key_frames, boxes, failed: that were read, their boxes, and that could not be read.
        best: "weights" where it is better than all before.
    """

    step: int
    mean: float | None
    loss: float | None
    key_frames: int
    boxes: int
    failed: int
    best: str | None = None

    def __str__(self) -> str:
        if self.mean is None:
            return f"nothing to score: {self.failed} key frames could not be read"
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


class DetectionHistory(Validations[Validated]):
    """A line per validation of the steps that a run has made."""

    def parsed(self, said: Any) -> Validated:
        return Validated(**said)

    def judged(self, now: Validated) -> Validated:
        """Says whether it is the best of those whose weights are still there."""
        bests = [one.mean for one in self.before(now.step) if one.best is not None]
        most = max((mean for mean in bests if mean is not None), default=-1.0)
        better = now.mean is not None and now.mean > most
        return replace(now, best="weights" if better else None)


def waited(every: Sequence[Validated]) -> int:
    """Validations since the first of the best ones."""
    means = [-1.0 if one.mean is None else one.mean for one in every]
    return len(means) - 1 - means.index(max(means))
