"""What the stages of a plan came to, as a table: for people, for documents and for programs."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Final

from videomae_fast.recipes.plan import Stage
from videomae_fast.tasks.progressive.record import Outcome, Scores


@dataclass(frozen=True)
class Row:
    """A finished stage.

    Attributes:
        stage, task, recipe: as in the plan.
        source, weights: what it began from: a stage, and which of its weights.
        steps: of its run.
        loss: of the last step.
        head: what became of the head of these weights.
        validation, best: of the last epoch and of the best, from one clip in the middle of a video.
        test: of several views of each video.
    """

    stage: str
    task: str
    recipe: str | None
    source: str | None
    weights: str
    steps: int
    loss: float | None
    head: str
    validation: Scores | None
    best: Scores | None
    test: Scores | None

    @staticmethod
    def of(stage: Stage, outcome: Outcome) -> Row:
        return Row(
            stage.name,
            stage.task,
            stage.recipe,
            stage.source,
            stage.weights,
            outcome.steps,
            outcome.loss,
            outcome.head,
            outcome.scores.get("validation"),
            outcome.scores.get("best"),
            outcome.scores.get("test"),
        )


def _began(row: Row) -> str:
    return "-" if row.source is None else f"{row.source} ({row.weights})"


def _top1(scores: Scores | None) -> str:
    if scores is None:
        return ""
    return "none read" if scores.top1 is None else f"{scores.top1:.2%}"


def _top5(scores: Scores | None) -> str:
    return "" if scores is None or scores.top5 is None else f"{scores.top5:.2%}"


def _best(row: Row) -> str:
    return "" if row.best is None else f"{_top1(row.best)} at {row.best.step:,}"


def _videos(row: Row) -> str:
    scores = row.test or row.validation
    if scores is None:
        return ""
    failed = f", {scores.failed} failed" if scores.failed else ""
    return f"{scores.videos:,}{failed}"


_COLUMNS: Final[dict[str, Callable[[Row], str]]] = {
    "stage": lambda row: row.stage,
    "task": lambda row: row.task,
    "began from": _began,
    "steps": lambda row: f"{row.steps:,}" if row.steps else "",
    "loss": lambda row: "" if row.loss is None else f"{row.loss:.4f}",
    "validation top-1": lambda row: _top1(row.validation),
    "best top-1": _best,
    "test top-1": lambda row: _top1(row.test),
    "test top-5": lambda row: _top5(row.test),
    "views": lambda row: "" if row.test is None else row.test.views,
    "videos": _videos,
}


def _cells(rows: Sequence[Row]) -> list[list[str]]:
    return [list(_COLUMNS), *([make(row) for make in _COLUMNS.values()] for row in rows)]


def as_text(rows: Sequence[Row]) -> str:
    """Aligned columns, a line per stage."""
    cells = _cells(rows)
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = [
        "  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip()
        for line in cells
    ]
    return "\n".join(lines) + "\n"


def as_markdown(rows: Sequence[Row]) -> str:
    """A table of Markdown."""
    head, *body = _cells(rows)
    lines = [head, ["-"] * len(head), *body]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def as_json(rows: Sequence[Row]) -> str:
    """A list with an object per stage."""
    return json.dumps([asdict(row) for row in rows], indent=2) + "\n"
