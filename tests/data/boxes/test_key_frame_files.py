"""Key frames and persons from JSON files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from videomae_fast.data.boxes.key_frame_files import read_annotations
from videomae_fast.data.boxes.person_boxes import read_person_boxes
from videomae_fast.data.errors import ListError

IMAGES = [
    {"id": 0, "movie": "a", "timestamp": 902, "width": 100, "height": 60},
    {"id": 1, "movie": "a", "timestamp": "0903", "width": 100, "height": 60},
]
ANNOTATIONS = [
    {"image_id": 1, "bbox": [10, 20, 30, 10], "action_ids": [3, 1]},
    {"image_id": 1, "bbox": [90, 50, 30.5, 40], "action_ids": []},
    {"image_id": 1, "bbox": [100, 50, 30, 40], "action_ids": [2]},
]


def _file(folder: Path, content: Any) -> Path:
    path = folder / "file.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_avas_file_is_read(tmp_path: Path) -> None:
    path = _file(tmp_path, {"images": IMAGES, "annotations": ANNOTATIONS})
    found = read_annotations(path, 3)
    assert [(one.video, one.timestamp, one.size) for one in found.frames] == [
        ("a", 902, (60, 100)), ("a", 903, (60, 100)),
    ]  # fmt: skip
    assert found.empty == 1
    assert found.with_boxes() == [found.frames[1]]
    frame = found.frames[1]
    assert frame.boxes.tolist() == [[10, 20, 39, 29], [90, 50, 99, 59]]
    assert frame.labels.tolist() == [[True, False, True], [False, False, False]]
    assert found.frames[0].boxes.shape == (0, 4)
    assert found.frames[0].labels.shape == (0, 3)


def test_files_like_cocos_are_read(tmp_path: Path) -> None:
    content = {
        "images": [{"id": "x", "video": "b.mp4", "timestamp": 4, "width": 50, "height": 40}],
        "categories": [{"id": 2, "name": "sit"}, {"id": 4, "name": "talk"}],
        "annotations": [
            {"image_id": "x", "bbox": [0, 0, 10, 10], "category_id": 2},
            {"image_id": "x", "bbox": [0, 0, 10, 10], "category_id": 4},
            {"image_id": "x", "bbox": [0, 0, 10, 11], "category_id": 4},
        ],
    }
    found = read_annotations(_file(tmp_path, content))
    assert found.names == {2: "sit", 4: "talk"}
    assert found.frames[0].labels.astype(int).tolist() == [[0, 1, 0, 1], [0, 0, 0, 1]]


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"images": None}, "images must be a list"),
        ({"images": [5]}, r"images\[0\] must be an object"),
        ({"images": [IMAGES[0]] * 2}, r"images\[1\]: id is 0: another image has it"),
        ({"images": [IMAGES[0], IMAGES[0] | {"id": 1}]}, "another image is of this second of a"),
        ({"images": [IMAGES[0] | {"width": 0}]}, r"images\[0\]: width is 0: .*at least 1"),
        ({"images": [IMAGES[0] | {"timestamp": 1.5}]}, "timestamp is 1.5: it must be a whole"),
        ({"images": [IMAGES[0] | {"height": 10**30}]}, "height is 10+: it must be a whole"),
        ({"images": [IMAGES[0] | {"height": "9" * 5000}]}, "height is .*: it must be a whole"),
        ({"images": [IMAGES[0] | {"movie": ""}]}, "movie is .*a text that is not empty"),
        ({"images": [{"id": 0, "timestamp": 1}]}, "video is missing"),
        ({"images": [IMAGES[0]]}, r"annotations\[0\]: image_id is 1: no image has this id"),
        ({"annotations": {}}, "annotations must be a list"),
        ({"annotations": [ANNOTATIONS[0] | {"bbox": [1, 2, 3]}]}, r"bbox is \[1, 2, 3\]: it must"),
        ({"annotations": [ANNOTATIONS[0] | {"bbox": [1, 2, 3, 1e999]}]}, "bbox .*finite"),
        ({"annotations": [ANNOTATIONS[0] | {"bbox": [1, 2, 3, 10**400]}]}, "bbox .*finite"),
        ({"annotations": [ANNOTATIONS[0] | {"action_ids": [0]}]}, r"action_ids is \[0\].*1 to 3"),
        ({"annotations": [ANNOTATIONS[0] | {"action_ids": [4]}]}, r"action_ids is \[4\].*1 to 3"),
        ({"annotations": [ANNOTATIONS[0] | {"action_ids": 2}]}, "action_ids is 2: .*a list"),
        ({"annotations": [{"image_id": 1, "bbox": [1, 2, 3, 4]}]}, "category_id is missing"),
        ({"categories": [{"id": 1, "name": "sit"}]}, "3 is not among the categories"),
        ({"categories": [{"id": 1, "name": "sit"}] * 2}, "another category has it"),
    ],
)
def test_what_can_not_be_is_named(changed: dict[str, Any], told: str, tmp_path: Path) -> None:
    path = _file(tmp_path, {"images": IMAGES, "annotations": ANNOTATIONS} | changed)
    with pytest.raises(ListError, match=f"^{path}.*{told}"):
        read_annotations(path, 3)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("{", "can't be read as JSON"),
        ("[" * 100_000, "can't be read as JSON"),
        ([], "must be an object with images"),
        ({"images": [], "annotations": []}, "say how many classes"),
    ],
)
def test_other_files_are_refused(content: Any, told: str, tmp_path: Path) -> None:
    with pytest.raises(ListError, match=told):
        read_annotations(_file(tmp_path, content))
    with pytest.raises(ListError, match="can't be read"):
        read_annotations(tmp_path / "none.json", 3)


def test_persons_are_those_above_the_threshold(tmp_path: Path) -> None:
    frames = read_annotations(_file(tmp_path, {"images": IMAGES, "annotations": []}), 3).frames
    persons = [
        {"image_id": 1, "bbox": [1, 2, 11, 5], "score": 0.8},
        {"image_id": 1, "bbox": [1, 2, 11, 5], "score": 0.79},
        {"image_id": 1, "bbox": [200, 2, 11, 5], "score": 0.9},
        {"image_id": 0, "bbox": [200, 2, 11, 5], "score": 0.9},
        {"image_id": 7, "bbox": [1, 2, 11, 5], "score": 0.9},
    ]
    path = _file(tmp_path, persons)
    found = read_person_boxes(path, frames)
    assert set(found.persons) == {1}
    assert found.persons[1].boxes.tolist() == [[1, 2, 11, 6]]
    assert found.persons[1].scores.tolist() == pytest.approx([0.8])
    assert (found.below, found.elsewhere, found.empty) == (1, 1, 2)
    assert len(read_person_boxes(path, frames, 0.5).persons[1].boxes) == 2
    with pytest.raises(ListError, match=r"no box is left: 4 have a score below 0\.99"):
        read_person_boxes(path, frames, 0.99)


@pytest.mark.parametrize(
    ("person", "told"),
    [
        ({"image_id": 1, "bbox": [1, 2, 11, 5]}, r"\[0\]: score is missing"),
        ({"image_id": 1, "bbox": [1, 2, 11, 5], "score": 1.5}, "score is 1.5: .*0 to 1"),
        ({"image_id": 1, "bbox": "all", "score": 1}, "bbox is .all.: it must be"),
        ({"image_id": None, "bbox": [1, 2, 11, 5], "score": 1}, "image_id is null"),
        (3, r"\[0\] must be an object"),
    ],
)
def test_persons_that_can_not_be_are_named(person: Any, told: str, tmp_path: Path) -> None:
    frames = read_annotations(_file(tmp_path, {"images": IMAGES, "annotations": []}), 3).frames
    with pytest.raises(ListError, match=told):
        read_person_boxes(_file(tmp_path, [person]), frames)
