"""Accuracies of known predictions."""

from __future__ import annotations

import numpy as np
import pytest

from videomae_fast.evaluation.accuracy import by_class, confusion, mean_class_accuracy, top_k

SCORES = np.array([[0.6, 0.3, 0.1], [0.5, 0.4, 0.1], [0.2, 0.3, 0.5], [0.1, 0.2, 0.7]])
LABELS = np.array([0, 1, 2, 1])


def test_top_k_counts_labels_among_the_largest() -> None:
    assert top_k(SCORES, LABELS, 1) == 0.5
    assert top_k(SCORES, LABELS, 2) == 1.0
    assert top_k(SCORES, LABELS, 5) == 1.0


def test_classes_have_their_rows() -> None:
    table = confusion(SCORES, LABELS)
    assert table.tolist() == [[1, 0, 0], [1, 0, 1], [0, 0, 1]]
    rows = by_class(table, ["a", "b", "c"])
    assert [(row.name, row.videos, row.right, row.most_often) for row in rows] == [
        ("a", 1, 1, None),
        ("b", 2, 0, 0),
        ("c", 1, 1, None),
    ]
    assert mean_class_accuracy(table) == pytest.approx(2 / 3)


def test_a_class_without_videos_has_no_accuracy() -> None:
    table = confusion(SCORES[:1], LABELS[:1])
    assert by_class(table, ["a", "b", "c"])[1].accuracy is None
    assert mean_class_accuracy(table) == 1.0


@pytest.mark.parametrize(
    ("scores", "labels", "told"),
    [
        (SCORES[:0], LABELS[:0], "no video"),
        (SCORES, LABELS[:2], "labels"),
        (SCORES, LABELS + 1, "from 0 to 2"),
    ],
)
def test_what_can_not_be_scored_is_refused(
    scores: np.ndarray, labels: np.ndarray, told: str
) -> None:
    with pytest.raises(ValueError, match=told):
        top_k(scores, labels, 1)
