"""AVA's frame-level mean average precision at an IoU of 0.5, exactly as it is scored officially.

It is not COCO's: a detection is compared with the one box of its class that it overlaps most, and
is a false alarm where that one is taken, even if a second box would do. Nothing is suppressed.

Source: ActivityNet's PascalDetectionEvaluator, which the official AVA code calls.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from videomae_fast.data.boxes.boxes import Boxes, Key, overlaps


@dataclass(frozen=True)
class ClassPrecision:
    """A class's row of the table.

    Attributes:
        name: of the class.
        annotated: its boxes among the annotations.
        detections: its boxes among the detections.
        precision: average precision, 0 to 1; None where nothing is annotated.
    """

    name: str
    annotated: int
    detections: int
    precision: float | None


@dataclass(frozen=True)
class Precision:
    """The result.

    Attributes:
        mean: over the classes that have annotations, 0 to 1.
        classes: by id.
    """

    mean: float
    classes: Mapping[int, ClassPrecision] = field(default_factory=dict)


def mean_average_precision(
    annotations: Mapping[Key, Boxes],
    detections: Mapping[Key, Boxes],
    names: Mapping[int, str],
    *,
    excluded: Collection[Key] = (),
    threshold: float = 0.5,
) -> Precision:
    """Average precision by class, and its mean.

    Args:
        annotations: by key frame; detections elsewhere are false alarms.
        detections: by key frame. Boxes without an area are left out.
        names: of the classes that count, by id; others are left out on both sides.
        excluded: key frames that don't count.
        threshold: the least IoU of a hit.

    Raises:
        ValueError: no annotation of any class that counts.
    """
    skipped = set(excluded)
    counted = np.array(sorted(names), dtype=np.int64)
    truth = {key: _of(boxes, counted) for key, boxes in annotations.items() if key not in skipped}
    scores, hits, classes = [], [], []
    for key, found in detections.items():
        if key in skipped:
            continue
        sorted_boxes = _by_score(_with_area(_of(found, counted)))
        scores.append(sorted_boxes.scores)
        classes.append(sorted_boxes.classes)
        hits.append(_hits(sorted_boxes, truth.get(key), threshold))
    all_scores = np.concatenate([*scores, np.empty(0)])
    all_hits = np.concatenate([*hits, np.empty(0, dtype=np.bool_)])
    all_classes = np.concatenate([*classes, np.empty(0, dtype=np.int64)])
    rows: dict[int, ClassPrecision] = {}
    for number in counted.tolist():
        annotated = sum(int((boxes.classes == number).sum()) for boxes in truth.values())
        mine = all_classes == number
        precision = None
        if annotated:
            precision = average_precision(all_scores[mine], all_hits[mine], annotated)
        rows[number] = ClassPrecision(names[number], annotated, int(mine.sum()), precision)
    found_precisions = [row.precision for row in rows.values() if row.precision is not None]
    if not found_precisions:
        raise ValueError("no annotation is of a class that counts: nothing can be scored")
    return Precision(float(np.mean(found_precisions)), rows)


def average_precision(
    scores: NDArray[np.float64], hits: NDArray[np.bool_], annotated: int
) -> float:
    """Area under the precision over recall, made monotone, over all its points.

    Args:
        scores: float64 [N].
        hits: bool [N].
        annotated: how many boxes there are to be found, at least 1.
    """
    # Falling, the later of equals first: what the official code gets where its sort is stable.
    order = np.argsort(scores, kind="stable")[::-1]
    right = np.cumsum(hits[order], dtype=np.float64)
    precision = right / np.arange(1, len(right) + 1)
    recall = np.concatenate([[0.0], right / annotated, [1.0]])
    precision = np.concatenate([[0.0], precision, [0.0]])
    precision = np.maximum.accumulate(precision[::-1])[::-1]
    steps = np.flatnonzero(recall[1:] != recall[:-1]) + 1
    return float(((recall[steps] - recall[steps - 1]) * precision[steps]).sum())


def _hits(found: Boxes, truth: Boxes | None, threshold: float) -> NDArray[np.bool_]:
    """Whether each detection, by falling score, is the first one of the box it overlaps most."""
    hits = np.zeros(len(found.scores), dtype=np.bool_)
    if truth is None or not len(truth.classes) or not len(hits):
        return hits
    shared = overlaps(found.boxes, truth.boxes)
    shared[found.classes[:, None] != truth.classes[None]] = -1.0
    best = shared.argmax(1)
    near = shared[np.arange(len(best)), best] >= threshold
    rows = np.flatnonzero(near)
    _, first = np.unique(best[rows], return_index=True)
    hits[rows[first]] = True
    return hits


def _of(boxes: Boxes, counted: NDArray[np.int64]) -> Boxes:
    return _chosen(boxes, np.isin(boxes.classes, counted))


def _with_area(boxes: Boxes) -> Boxes:
    return _chosen(boxes, np.asarray((boxes.boxes[:, :2] < boxes.boxes[:, 2:]).all(1)))


def _by_score(boxes: Boxes) -> Boxes:
    return _chosen(boxes, np.argsort(boxes.scores, kind="stable")[::-1])


def _chosen(boxes: Boxes, which: NDArray[np.int64] | NDArray[np.bool_]) -> Boxes:
    return Boxes(boxes.boxes[which], boxes.classes[which], boxes.scores[which])
