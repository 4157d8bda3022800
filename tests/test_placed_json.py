"""JSON with lines: the standard library's values, and where they stand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from videomae_fast.data.boxes.key_frame_files import read_annotations
from videomae_fast.data.boxes.person_boxes import read_person_boxes
from videomae_fast.data.errors import ListError
from videomae_fast.placed_json import PlacedList, PlacedObject, placed_json

VALUES: list[Any] = [
    {}, [], {"a": []}, [[], {}], 3, "x", None,
    {"a": [1, {"b": [2, "]"]}], "b": {"c": [1]}, "c": "}"},
    [{"a": 1}, {"b": "\n,"}, 2.5], {"\u00e9\"": ["\U0001f600", "a\nb"]},
]  # fmt: skip


@pytest.mark.parametrize("value", VALUES, ids=str)
@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_values_are_the_standard_librarys(value: Any, indent: int | None, encoding: str) -> None:
    text = "\n " + json.dumps(value, indent=indent, ensure_ascii=False) + " \r\n"
    assert placed_json(text.encode(encoding)) == value


def test_lines_are_where_parts_begin() -> None:
    found = placed_json(b'\n{"a":\n [1,\n {"x":\n 2}, 3\n, 4],\n\n"b": {"c": []}, "d": [\n]}')
    assert isinstance(found, PlacedObject)
    assert found.lines == {"a": 2, "b": 8, "d": 8}
    assert isinstance(found["a"], PlacedList)
    assert found["a"].lines == [3, 4, 5, 6]
    assert found["d"].lines == []
    listed = placed_json(b"[{},\n\n{}]")
    assert listed.lines == [1, 3]


@pytest.mark.parametrize(
    "text",
    ["", " ", "{", "[", "[1", "[1,", "[1,]", "[1 2]", "{,}", '{"a"', '{"a":', '{"a":1', '{"a":1,}',
     '{"a" 1}', "{1: 2}", "[] []", "{} 1", "nul", '{"a": [1,, 2]}', '{"a": [}', "]"],
)  # fmt: skip
def test_errors_are_the_standard_librarys(text: str) -> None:
    told = []
    for read in (json.loads, placed_json):
        with pytest.raises(ValueError) as found:  # noqa: PT011
            read(text.encode())
        told.append(str(found.value))
    assert told[0] == told[1]


IMAGES = """{"images": [
  {"id": 0, "video": "a", "timestamp": 1, "width": 40, "height": 30},
  {"id": 1, "video": "b", "timestamp": 1, "width": 40, "height": 30}
 ],
 "categories": [{"id": 1, "name": "sit"}],
 "annotations": [
  {"image_id": 0, "bbox": [1, 2, 9, 9], "category_id": 1},
  {
   "image_id": 1,
   "bbox": [1, 2, 9],
   "category_id": 1
  }
 ]}"""


def test_lists_of_boxes_name_file_and_line(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(IMAGES)
    with pytest.raises(ListError, match=rf"^{path}:8: annotations\[1\]: bbox is \[1, 2, 9\]"):
        read_annotations(path)
    path.write_text(IMAGES.replace('"width": 40, "height": 30}\n', '"width": 40}\n'))
    with pytest.raises(ListError, match=rf"^{path}:3: images\[1\]: height is missing"):
        read_annotations(path)
    path.write_text(IMAGES.replace("[1, 2, 9],", "[1, 2, 9, 9],"))
    frames = read_annotations(path).frames
    assert [frame.line for frame in frames] == [2, 3]
    persons = tmp_path / "p.json"
    persons.write_text('[{"image_id": 0, "bbox": [1, 2, 9, 9], "score": 1},\n\n{"image_id": 0}]')
    with pytest.raises(ListError, match=rf"^{persons}:3: \[1\]: bbox is missing"):
        read_person_boxes(persons, frames)
