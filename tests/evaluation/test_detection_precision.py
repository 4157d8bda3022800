"""AVA's precision against the official evaluation."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from videomae_fast.data.boxes.ava_files import (
    csv_lines,
    detected_shares,
    read_boxes,
    read_exclusions,
    read_label_map,
)
from videomae_fast.data.boxes.boxes import Boxes
from videomae_fast.data.errors import ListError
from videomae_fast.evaluation.detection_precision import (
    average_precision,
    mean_average_precision,
    overlaps,
)

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "downstream_ava_eval.json").read_text())


def _file(folder: Path, name: str) -> Path:
    path = folder / name
    path.write_text(GOLDEN[name])
    return path


def test_precision_is_the_official_one(tmp_path: Path) -> None:
    found = mean_average_precision(
        read_boxes(_file(tmp_path, "ground_truth_csv"), "annotations"),
        read_boxes(_file(tmp_path, "detections_csv"), "detections"),
        read_label_map(_file(tmp_path, "label_map")),
        excluded=read_exclusions(_file(tmp_path, "exclusions_csv")),
    )
    wanted = {key.rpartition("/")[2]: value for key, value in GOLDEN["results"].items()}
    assert found.mean == pytest.approx(wanted.pop("mAP@0.5IOU"), abs=1e-12)
    own = {row.name: row.precision for row in found.classes.values() if row.precision is not None}
    assert own == pytest.approx({k: v for k, v in wanted.items() if v is not None}, abs=1e-12)


def test_a_csv_of_detections_is_the_official_one() -> None:
    case = GOLDEN["csv_from_boxes"]
    clip, frame = tuple(case["clip_size_w_h"]), tuple(case["video_size_w_h"])
    shares = detected_shares(np.array(case["boxes_xyxy"], dtype=float), clip=clip, frame=frame)
    scores, key = np.array(case["scores"]), (case["movie"], f"{case['timestamp']:04d}")
    lines = csv_lines(key, shares, scores, range(1, scores.shape[1] + 1))
    assert "".join(f"{line}\n" for line in lines) == case["csv"]


def _boxes(*rows: tuple[list[float], int, float]) -> Boxes:
    return Boxes(
        np.array([box for box, _, _ in rows]),
        np.array([number for _, number, _ in rows]),
        np.array([score for _, _, score in rows]),
    )


def test_the_second_best_box_is_not_taken() -> None:
    """Where COCO would give both detections a box."""
    left, right = [0.0, 0.0, 0.5, 1.0], [0.1, 0.0, 0.6, 1.0]
    truth = {("v", "1"): _boxes((left, 1, 1.0), (right, 1, 1.0))}
    both = {("v", "1"): _boxes((left, 1, 0.9), ([0.01, 0.0, 0.51, 1.0], 1, 0.8))}
    found = mean_average_precision(truth, both, {1: "a"})
    assert found.mean == pytest.approx(0.5)


def test_elsewhere_and_twice_are_false_alarms() -> None:
    box = [0.0, 0.0, 0.5, 1.0]
    truth = {("v", "1"): _boxes((box, 1, 1.0))}
    found = mean_average_precision(
        truth,
        {("w", "1"): _boxes((box, 1, 0.99)), ("v", "1"): _boxes((box, 1, 0.9), (box, 1, 0.8))},
        {1: "a", 2: "b"},
    )
    assert found.mean == pytest.approx(0.5)
    assert found.classes[2].precision is None
    assert found.classes[1].detections == 3


def test_average_precision_of_known_lists() -> None:
    hits = np.array([True, False, True])
    scores = np.array([0.9, 0.8, 0.7])
    assert average_precision(scores, hits, 2) == pytest.approx(0.5 + 0.5 * 2 / 3)
    assert average_precision(scores, hits, 4) == pytest.approx(0.25 + 0.25 * 2 / 3)
    assert average_precision(np.empty(0), np.empty(0, dtype=bool), 3) == 0.0


def test_overlaps_of_known_boxes() -> None:
    one = np.array([[0.0, 0.0, 2.0, 2.0], [0.0, 0.0, 0.0, 0.0]])
    other = np.array([[1.0, 0.0, 3.0, 2.0], [4.0, 4.0, 5.0, 5.0]])
    assert overlaps(one, other) == pytest.approx(np.array([[1 / 3, 0.0], [0.0, 0.0]]))


def test_nothing_to_score_is_said() -> None:
    with pytest.raises(ValueError, match="nothing can be scored"):
        mean_average_precision({}, {}, {1: "a"})


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("v,1,0,0,1,1", "boxes.csv:1: 6 values"),
        ("v,1,0,0,x,1,3", "boxes.csv:1: could not convert"),
        ("v,1,0,0,120,80,3", "not pixels"),
        ("v,1,0,0,nan,1,3", "no finite number"),
    ],
)
def test_lines_that_can_not_be_are_named(line: str, told: str, tmp_path: Path) -> None:
    path = tmp_path / "boxes.csv"
    path.write_text(line + "\n")
    with pytest.raises(ListError, match=told):
        read_boxes(path, "annotations")


def test_files_that_say_nothing_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "map.pbtxt"
    path.write_text("nothing")
    with pytest.raises(ListError, match="no class there"):
        read_label_map(path)
    path.write_text('item { name: "a" id: 1 }\nitem { name: "b" id: 1 }')
    with pytest.raises(ListError, match="id 1 occurs twice"):
        read_label_map(path)
    with pytest.raises(ListError, match="can't be read"):
        read_boxes(tmp_path / "none.csv", "annotations")
