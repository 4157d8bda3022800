"""Accuracies of the stages of progressive training as a picture: bars, and curves over epochs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_COLOURS: Final = {"validation": "#93c5fd", "test": "#1d4ed8"}


@dataclass(frozen=True)
class Bar:
    """A stage's accuracy. kind: "validation" or "test"; top1: share of videos, 0 to 1."""

    stage: str
    kind: str
    top1: float


def save_stage_scores(
    path: Path,
    bars: Sequence[Bar],
    curves: Mapping[str, Sequence[tuple[float, float]]],
    *,
    title: str,
) -> Path:
    """Draws the accuracies, and how validation went in each stage, as a PNG.

    Args:
        path: of the picture, which is whole or not there.
        bars: at least one.
        curves: by stage, (share of its steps done, top-1) after each epoch.
        title: above the picture.

    Raises:
        ValueError: no bar.
    """
    if not bars:
        raise ValueError("no stage has an accuracy")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, max(3.0, 1.2 + 0.32 * len(bars))), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    left.barh(
        [f"{bar.stage}, {bar.kind}" for bar in bars],
        [100 * bar.top1 for bar in bars],
        color=[_COLOURS[bar.kind] for bar in bars],
    )
    for place, bar in enumerate(bars):
        left.annotate(f" {bar.top1:.1%}", (100 * bar.top1, place), va="center")
    left.invert_yaxis()  # the first on top
    left.set_xlim(0, 115)
    left.set_xlabel("top-1 (%)")
    for stage, points in curves.items():
        right.plot(
            [100 * share for share, _ in points],
            [100 * top1 for _, top1 in points],
            marker=".",
            label=stage,
        )
    right.set_xlabel("steps of the stage done (%)")
    if curves:
        right.legend(frameon=False)
    right.set_ylabel("validation's top-1 (%)")
    right.set_ylim(0, 105)
    for axes, direction in ((left, "x"), (right, "y")):
        axes.grid(alpha=0.25, axis=direction)
        axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle(title, x=0.01, ha="left", fontweight="bold")
    partial = path.with_name(f".partial-{path.name}")
    figure.savefig(partial, format="png")
    partial.replace(path)
    return path
