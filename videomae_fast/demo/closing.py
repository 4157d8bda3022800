"""The last lines of the demo: what to look at, and what the figures are against."""

from __future__ import annotations

import math
from pathlib import Path

from videomae_fast.demo.classifying import ARMS
from videomae_fast.demo.run import DemoResult


def what_to_look_at(done: DemoResult) -> list[str]:
    """Ten lines at most, the most telling first."""
    found = done.trained if done.held_out is None else done.held_out
    seen = "trained on" if done.held_out is None else "never trained on"
    lines = [
        f"what to look at, in {done.output}/:",
        _line(done, done.pictures[0].animation, "what was hidden, before and after training"),
        _line(done, done.pictures[0].picture, f"the same as a sheet; {len(done.pictures)} videos"),
        f"  {found.videos} videos that it was {seen}: loss on what is hidden {found.after:.3f}, "
        f"predicting nothing {found.nothing:.3f}, untrained {found.before:.3f}",
        _line(done, done.loss_plot, f"training loss {done.first_loss:.3f} -> {done.last_loss:.3f}"),
    ]
    if done.accuracies is not None:
        confusion = done.accuracies.with_name("confusion-pre-trained.png")
        tuned, scratch = (done.classified[arm] for arm in ARMS)
        lines += [
            _line(
                done, done.accuracies,
                f"8 motions from {done.labelled} labels: {tuned.accuracy:.1%} of "
                f"{tuned.result.videos} held-out videos after pre-training,",
            ),
            f"  from scratch in as many steps {scratch.accuracy:.1%}, by chance {done.chance:.1%}: "
            + verdict(tuned.accuracy, scratch.accuracy, tuned.result.videos),
            _line(done, confusion, "which motion is taken for which"),
        ]  # fmt: skip
    return [
        *lines,
        _line(done, done.output / "demo.json", "all figures"),
        f"next: videomae-fast report {done.output / 'run'}, or make demo VIDEOS=folder-of-videos",
    ]


def verdict(tuned: float, scratch: float, videos: int) -> str:
    """Whether pre-training paid, where two shares of as many videos are two standard errors apart.

    Args:
        tuned, scratch: the shares that were right.
        videos: that were scored.
    """
    error = math.sqrt((tuned * (1 - tuned) + scratch * (1 - scratch)) / videos)
    if abs(tuned - scratch) <= 2 * error:
        return f"less than {200 * error:.0f} points apart, so one run does not tell"
    return f"in this run pre-training {'paid' if tuned > scratch else 'did not pay'}"


def _line(done: DemoResult, path: Path, told: str) -> str:
    return f"  {path.relative_to(done.output)!s:44} {told}"
