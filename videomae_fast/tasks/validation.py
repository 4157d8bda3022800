"""Validation after each epoch: how good, whether better than before, and what looks wrong."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from videomae_fast.data.failures import Failure
from videomae_fast.evaluation.chance import verdict
from videomae_fast.evaluation.multi_view import VideoScores
from videomae_fast.tasks.history import Validations
from videomae_fast.training.metrics import read_metrics

BEST: Final = "best.safetensors"
_WORSE: Final = 0.05
"""Fall of top-1 below the best that is told where the training loss falls meanwhile."""


@dataclass(frozen=True)
class Scored:
    """What a process keeps of a video: its place, loss, and how many classes score above its label
    (ties go to the lower class); or the failure."""

    place: int
    loss: float
    above: int
    failure: Failure | None

    @staticmethod
    def of(one: VideoScores) -> Scored:
        """Of a video whose label is one of the classes."""
        if one.scores is None:
            return Scored(one.place, one.loss, -1, one.failure)
        own = one.scores[one.label]
        above = int((one.scores > own).sum() + (one.scores[: one.label] == own).sum())
        return Scored(one.place, one.loss, above, None)


@dataclass(frozen=True)
class Numbers:
    """Of one set of weights over all videos that could be read; None where there was none.

    Attributes:
        top1, top5: shares of videos, 0 to 1.
        loss: mean cross-entropy.
        videos, failed: that were read, and could not be.
    """

    top1: float | None
    top5: float | None
    loss: float | None
    videos: int
    failed: int

    @staticmethod
    def of(scored: Iterable[Scored]) -> Numbers:
        """The sums go in the order of the list, so they are the same for any processes."""
        every = sorted({one.place: one for one in scored}.values(), key=lambda one: one.place)
        read = [one for one in every if one.failure is None]
        if not read:
            return Numbers(None, None, None, 0, len(every))
        above = np.array([one.above for one in read])
        loss = math.fsum(one.loss for one in read) / len(read)
        return Numbers(
            float((above < 1).mean()),
            float((above < 5).mean()),
            loss,
            len(read),
            len(every) - len(read),
        )

    def __str__(self) -> str:
        if self.top1 is None or self.top5 is None or self.loss is None:
            return f"none of {self.failed} videos could be read"
        failed = f", {self.failed} could not be read" if self.failed else ""
        return (
            f"top-1 {self.top1:.1%}, top-5 {self.top5:.1%}, loss {self.loss:.4f} "
            f"({self.videos} videos{failed})"
        )


@dataclass(frozen=True)
class Epoch:
    """A line of the file: steps done, what was found, and which weights were the best so far.

    Attributes:
        step: steps done.
        weights: of the weights as trained.
        average: of their moving average, None without one.
        best: the better of both, where it is better than all before: "weights" or "average".
    """

    step: int
    weights: Numbers
    average: Numbers | None
    best: str | None

    @property
    def top1(self) -> float:
        """The better one's, below 0 where nothing could be read."""
        tops = [one.top1 for one in (self.weights, self.average) if one is not None]
        return max(-1.0 if top is None else top for top in tops)


class History(Validations[Epoch]):
    """A line per epoch of the steps that a run has made."""

    def parsed(self, said: Any) -> Epoch:
        average = said["average"]
        return Epoch(
            int(said["step"]),
            Numbers(**said["weights"]),
            None if average is None else Numbers(**average),
            said["best"],
        )

    def judged(self, step: int, weights: Numbers, average: Numbers | None) -> Epoch:
        """An epoch's line: whether it is the best of those whose weights are still there."""
        now = Epoch(step, weights, average, None)
        most = max((one.top1 for one in self.before(step) if one.best is not None), default=-1.0)
        if now.top1 <= most:
            return now
        return replace(now, best="weights" if weights.top1 == now.top1 else "average")


def waited(epochs: Sequence[Epoch]) -> int:
    """Epochs since the first of those that validated best."""
    tops = [one.top1 for one in epochs]
    return len(tops) - 1 - tops.index(max(tops))


IN_TRAINING: Final = (
    "training and validation lists number the classes differently (make both with videomae-fast "
    "list --labels --classes FILE)",
    "the weights that the run began from are of another kind (see 'began from' above), were "
    "trained on pixels normalised otherwise than by ImageNet's mean and deviation, or none were "
    "given (--init)",
    "the learning rate is too high or too low for the batch",
    "flips where left and right are classes (--flip 0)",
    "too few epochs yet",
)
IN_TEST: Final = (
    "the list numbers the classes otherwise than the run that trained the weights (--classes gives "
    "their names, which are compared with the weights')",
    "the head was never trained: weights of pre-training, or a head that was made new",
    "the weights were trained on pixels normalised otherwise than by ImageNet's mean and deviation",
    "stride, frames or sampling are not those of the training",
)


def at_chance(
    top1: float | None, videos: int, classes: int, causes: Sequence[str] = IN_TRAINING
) -> str | None:
    """A warning where top-1 is what guessing gives, a note where nobody could tell; else None.

    Args:
        top1: share of the videos; None: not measured.
        videos: that it was measured on.
        classes: of the model.
        causes: likely ones of guessing.
    """
    if top1 is None or classes < 2:
        return None
    chance = 1 / classes
    found = verdict(top1, videos, chance)
    if found == "better":
        return None
    if found == "too few":
        return (
            f"note: top-1 {top1:.1%} of {videos} videos: too few to tell from guessing among "
            f"{classes} classes ({chance:.1%})"
        )
    return (
        f"warning: top-1 {top1:.1%} is no better than guessing among {classes} classes "
        f"({chance:.1%}). Likely causes: {'; '.join(causes)}"
    )


def getting_worse(epochs: Sequence[Epoch], losses: Mapping[int, float]) -> str | None:
    """A warning where validation fell while the training loss did; else None.

    Args:
        epochs: so far.
        losses: mean training loss of the epochs that end at a number of steps.
    """
    now = epochs[-1]
    best = max(epochs, key=lambda one: one.top1)
    if best.top1 - now.top1 < _WORSE or not {best.step, now.step} <= losses.keys():
        return None
    if losses[now.step] >= losses[best.step]:
        return None
    return (
        f"warning: validation's top-1 fell from {best.top1:.1%} after {best.step} steps to "
        f"{now.top1:.1%}, while the training loss fell from {losses[best.step]:.4f} to "
        f"{losses[now.step]:.4f}: the model learns its training videos by heart. Lower base_lr or "
        "epochs, raise drop_path or head_dropout, or end early (--patience); "
        f"the best weights are in {BEST}"
    )


def training_losses(folder: Path, per_epoch: int) -> dict[int, float]:
    """Mean training loss of each epoch, by the steps done at its end."""
    found: dict[int, list[float]] = {}
    for line in read_metrics(folder / "metrics.jsonl"):
        if line.get("loss") is not None:
            end = (int(line["step"]) // per_epoch + 1) * per_epoch
            found.setdefault(end, []).append(float(line["loss"]))
    return {end: math.fsum(losses) / len(losses) for end, losses in found.items()}
