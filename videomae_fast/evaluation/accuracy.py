"""Accuracies: over all videos, by class, and which class is taken for which."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Scores = NDArray[np.float64]
Labels = NDArray[np.int64]


@dataclass(frozen=True)
class ClassAccuracy:
    """A class's row of the table.

    Attributes:
        label, name: of the class.
        videos: with this label.
        right: of them, those with the largest score at their label.
        most_often: the wrong class that is predicted most often for them, or None.
    """

    label: int
    name: str
    videos: int
    right: int
    most_often: int | None

    @property
    def accuracy(self) -> float | None:
        """Share of its videos that are right; None where it has none."""
        return self.right / self.videos if self.videos else None


def top_k(scores: Scores, labels: Labels, k: int) -> float:
    """Share of videos whose label is among the `k` largest scores, 0 to 1.

    Args:
        scores: float [N, classes].
        labels: int64 [N].
        k: where it exceeds the number of classes, every label is among them.

    Raises:
        ValueError: no video, labels of another number or outside the classes, or `k` below 1.
    """
    _check(scores, labels)
    if k < 1:
        raise ValueError(f"k ({k}) must be at least 1")
    largest = np.argsort(-scores, axis=-1, kind="stable")[:, :k]
    return float((largest == labels[:, None]).any(-1).mean())


def confusion(scores: Scores, labels: Labels) -> NDArray[np.int64]:
    """How often each class (row) is taken for each (column), int64 [classes, classes].

    Raises:
        ValueError: as :func:`top_k`.
    """
    _check(scores, labels)
    classes = scores.shape[1]
    table = np.zeros((classes, classes), dtype=np.int64)
    np.add.at(table, (labels, predictions(scores)), 1)
    return table


def by_class(table: NDArray[np.int64], names: Sequence[str]) -> list[ClassAccuracy]:
    """The table of classes, by label.

    Args:
        table: :func:`confusion`.
        names: of the classes, by label.

    Raises:
        ValueError: another number of names than classes.
    """
    if len(names) != len(table):
        raise ValueError(f"{len(names)} names for {len(table)} classes")
    rows = []
    for label, counts in enumerate(table):
        wrong = counts.copy()
        wrong[label] = 0
        worst = int(wrong.argmax()) if wrong.any() else None
        rows.append(
            ClassAccuracy(label, names[label], int(counts.sum()), int(counts[label]), worst)
        )
    return rows


def mean_class_accuracy(table: NDArray[np.int64]) -> float:
    """Mean of the accuracies of the classes that have videos, 0 to 1."""
    counts = table.sum(1)
    there = counts > 0
    return float((np.diag(table)[there] / counts[there]).mean())


def predictions(scores: Scores) -> Labels:
    """The class with the largest score, the first of equals, int64 [N]."""
    best: Labels = scores.argmax(-1).astype(np.int64)
    return best


def _check(scores: Scores, labels: Labels) -> None:
    if scores.ndim != 2 or labels.shape != scores.shape[:1]:
        raise ValueError(
            f"scores must be [N, classes] and labels [N], got {list(scores.shape)}, "
            f"{list(labels.shape)}"
        )
    if not len(labels):
        raise ValueError("there is no video to be right or wrong about")
    if labels.min() < 0 or labels.max() >= scores.shape[1]:
        raise ValueError(
            f"labels run from {labels.min()} to {labels.max()}, classes from 0 to "
            f"{scores.shape[1] - 1}"
        )
