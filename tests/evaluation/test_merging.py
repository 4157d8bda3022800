"""Views merged to videos, against the official files and in any order."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from videomae_fast.evaluation.accuracy import top_k
from videomae_fast.evaluation.merging import Logits, ViewLogits

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "downstream_merge.json").read_text())

Row = tuple[int, int, Logits, int]


def _official() -> tuple[list[Row], list[str]]:
    """(video, view, logits, label) of all lines of the official files, and the videos' names."""
    found: list[tuple[str, tuple[int, int], Logits, int]] = []
    for text in GOLDEN["files"].values():
        for line in text.splitlines()[1:]:
            name, rest = line.split(" ", 1)
            logits = np.array(json.loads(rest[: rest.index("]") + 1]), dtype=np.float32)
            label, segment, crop = (int(each) for each in rest[rest.index("]") + 1 :].split())
            found.append((name, (segment, crop), logits, label))
    names = sorted({name for name, *_ in found})
    views = sorted({view for _, view, *_ in found})
    rows = [(names.index(n), views.index(v), logits, label) for n, v, logits, label in found]
    return rows, names


def _merged(rows: list[Row], how: Any) -> tuple[Any, np.ndarray]:
    views = ViewLogits(len(rows[0][2]), 1 + max(view for _, view, *_ in rows))
    for video, view, logits, _ in rows:
        views.add(video, view, logits)
    labels = {video: label for video, _, _, label in rows}
    merged = views.merge(how)
    return merged, np.array([labels[int(video)] for video in merged.videos])


@pytest.mark.parametrize("how", ["prob", "score"])
def test_accuracies_are_the_official_ones(how: str) -> None:
    rows, _ = _official()
    merged, labels = _merged(rows, how)
    top1, top5 = GOLDEN["top1_top5"][how]
    assert 100 * top_k(merged.scores, labels, 1) == pytest.approx(top1, abs=1e-9)
    assert 100 * top_k(merged.scores, labels, 5) == pytest.approx(top5, abs=1e-9)


def test_neither_order_nor_processes_change_a_bit() -> None:
    rows, _ = _official()
    whole, _ = _merged(rows, "prob")
    shuffled = random.Random(1).sample(rows, len(rows))
    again, _ = _merged(shuffled, "prob")
    parts = [ViewLogits(len(rows[0][2]), 1 + max(view for _, view, *_ in rows)) for _ in range(3)]
    for i, (video, view, logits, _) in enumerate(shuffled):
        parts[i % 3].add(video, view, logits)
    parts[0].update(part.rows for part in parts[1:])
    for other in (again, parts[0].merge()):
        assert np.array_equal(other.videos, whole.videos)
        assert np.array_equal(other.scores, whole.scores)
        assert np.array_equal(other.views, whole.views)


def test_what_is_missing_is_named_and_left_out() -> None:
    views = ViewLogits(2, 3)
    for view in range(3):
        views.add(4, view, np.array([1.0, 0.0], dtype=np.float32))
    views.add(2, 1, np.array([0.0, 1.0], dtype=np.float32))
    assert views.missing(range(2, 5)) == {2: [0, 2], 3: [0, 1, 2]}
    merged = views.merge()
    assert merged.videos.tolist() == [2, 4]
    assert merged.views.tolist() == [1, 3]


@pytest.mark.parametrize(
    ("video", "view", "logits", "told"),
    [
        (0, 3, [0.0, 1.0], "views 0..2"),
        (0, 0, [0.0], r"must be \[2\]"),
        (0, 0, [0.0, float("nan")], "NaN"),
    ],
)
def test_what_can_not_be_is_refused(video: int, view: int, logits: list[float], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        ViewLogits(2, 3).add(video, view, np.array(logits, dtype=np.float32))
