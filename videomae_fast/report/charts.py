"""Numbers of a run over its steps as line charts, drawn as SVG."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

MOST_POINTS: Final = 1000
"""Of a line; where there are more steps, a point is the mean of some that follow one another."""

COLOURS: Final = ("#1d4ed8", "#d97706", "#15803d", "#b91c1c")


@dataclass(frozen=True)
class Line:
    """One line of a chart; what is None is left out of it.

    Attributes:
        name: in the legend.
        steps: where its values are.
        values: as many.
        right: it has an axis of its own, on the right.
        points: each value is a point, too.
    """

    name: str
    steps: Sequence[int]
    values: Sequence[float | None]
    right: bool = False
    points: bool = False


def line_of(name: str, steps: Sequence[Mapping[str, Any]], key: str, right: bool = False) -> Line:
    """A number of each step, by its key in ``metrics.jsonl``."""
    return Line(name, [step["step"] for step in steps], [step.get(key) for step in steps], right)


def thinned(line: Line, most: int = MOST_POINTS) -> tuple[list[float], list[float]]:
    """Places and values of a line: at most `most`, each the mean of as many values."""
    pairs = [
        (step, value)
        for step, value in zip(line.steps, line.values, strict=True)
        if value is not None and math.isfinite(value)
    ]
    width = max(1, math.ceil(len(pairs) / most))
    groups = [pairs[i : i + width] for i in range(0, len(pairs), width)]
    return (
        [math.fsum(step for step, _ in group) / len(group) for group in groups],
        [math.fsum(value for _, value in group) / len(group) for group in groups],
    )


def chart(lines: Sequence[Line], *, left: str, right: str = "") -> str:
    """An SVG picture of lines over steps.

    Args:
        left, right: what the axes count, with units.

    Returns:
        The SVG's text; "" where no line has a value.
    """
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    drawn = [(line, *thinned(line)) for line in lines]
    drawn = [one for one in drawn if one[1]]
    if not drawn:
        return ""
    figure = Figure(figsize=(8, 3.2), layout="constrained")
    FigureCanvasSVG(figure)
    axes = figure.add_subplot()
    other = axes.twinx() if any(line.right for line, *_ in drawn) else None
    for (line, at, values), colour in zip(drawn, COLOURS, strict=False):
        where = other if line.right and other is not None else axes
        style = "--" if line.right else "-"
        marker = "o" if line.points or len(at) == 1 else None
        where.plot(at, values, style, color=colour, linewidth=1.4, marker=marker, label=line.name)
    axes.set_xlabel("step")
    axes.set_ylabel(left)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    if other is not None:
        other.set_ylabel(right)
        other.spines["top"].set_visible(False)
        other.set_ylim(bottom=0)
    handles = [one for part in (axes, other) if part is not None for one in part.get_lines()]
    figure.legend(
        handles, [str(one.get_label()) for one in handles], frameon=False, ncols=4,
        loc="outside upper left", fontsize="small",
    )  # fmt: skip
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None})
    return text.getvalue()
