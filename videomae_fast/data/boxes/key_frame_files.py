"""Key frames with boxes and actions, from JSON: AVA's files, and own ones like COCO's.

AVA's ``ava_train_v2.2_min.json`` has ``images`` (``id``, ``movie``, ``timestamp``, ``width``,
``height``) and ``annotations`` (``image_id``, ``bbox``, ``action_ids``). In own files ``video`` may
stand for ``movie``, and ``category_id`` for ``action_ids``, one annotation for each action of a
box; ``categories`` (``id``, ``name``) say which actions there are.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from videomae_fast.data.boxes.geometry import Size, from_corner_and_size
from videomae_fast.data.boxes.json_fields import ImageId, Record, load_json, records
from videomae_fast.data.errors import ListError

Corners = tuple[float, float, float, float]


@dataclass(frozen=True)
class KeyFrame:
    """A second of a video, and who does what there.

    Attributes:
        id: of the image in its file.
        video: its name.
        timestamp: of the key frame in whole seconds.
        size: (height, width) of the video in pixels, to which the boxes belong.
        boxes: float32 [N, 4]: x1, y1, x2, y2 in pixels, the last ones included, within the frame.
        labels: bool [N, classes]; action k is column k - 1.
        line: of the file where the image begins, from 1.
    """

    id: ImageId
    video: str
    timestamp: int
    size: Size
    boxes: NDArray[np.float32]
    labels: NDArray[np.bool_]
    line: int = 0


@dataclass(frozen=True)
class Annotations:
    """What a file holds.

    Attributes:
        frames: in the order of the file, those without a box included.
        names: of the actions, by id; empty where the file has no categories.
        empty: boxes that were left out, as nothing of them lies within their frame.
    """

    frames: list[KeyFrame]
    names: dict[int, str] = field(default_factory=dict)
    empty: int = 0

    def with_boxes(self) -> list[KeyFrame]:
        """The key frames that training can use."""
        return [frame for frame in self.frames if len(frame.boxes)]


def read_annotations(path: str | Path, classes: int | None = None) -> Annotations:
    """The key frames of a JSON file, all checked.

    Args:
        path: of the file.
        classes: how many actions there are, with ids from 1: 80 for AVA. None takes the greatest
            id of the file's categories.

    Raises:
        ListError: something in it is missing or can't be; it names file, line and remedy.

    Source: the data sets of the official AVA code, which check nothing.
    """
    path = Path(path)
    content = load_json(path)
    if not isinstance(content, dict):
        raise ListError(f"{path}: must be an object with images and annotations")
    names = _names(path, content.get("categories", []))
    if classes is None:
        if not names:
            raise ListError(f"{path}: has no categories: say how many classes there are")
        classes = max(names)
    images = _images(path, content.get("images"))
    rows: dict[ImageId, dict[Corners, set[int]]] = {one: {} for one in images}
    for record in records(path, "annotations", content.get("annotations")):
        image = record.identity("image_id")
        if image not in rows:
            raise record.wrong("image_id", "no image has this id")
        actions = _actions(record, classes, names)
        rows[image].setdefault(record.box("bbox"), set()).update(actions)
    frames, empty = [], 0
    for image, (video, timestamp, size, line) in images.items():
        boxes, kept = boxes_within(rows[image], size)
        labels = np.zeros((len(rows[image]), classes), dtype=np.bool_)
        for row, mine in zip(labels, rows[image].values(), strict=True):
            row[[number - 1 for number in mine]] = True
        empty += len(kept) - len(boxes)
        frames.append(KeyFrame(image, video, timestamp, size, boxes, labels[kept], line))
    return Annotations(frames, names, empty)


def boxes_within(
    boxes: Iterable[Corners], size: Size
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Boxes x, y, width, height to those that lie within a frame, and which they are.

    Returns:
        float32 [M, 4]: x1, y1, x2, y2; and bool [N].
    """
    rows = torch.tensor(list(boxes), dtype=torch.float32).view(-1, 4)
    found, kept = from_corner_and_size(rows, size)
    return found.numpy(), kept.numpy()


def _names(path: Path, categories: object) -> dict[int, str]:
    names: dict[int, str] = {}
    for record in records(path, "categories", categories):
        number = record.whole("id", 1)
        if number in names:
            raise record.wrong("id", "another category has it")
        names[number] = record.text("name")
    return names


def _images(path: Path, images: object) -> dict[ImageId, tuple[str, int, Size, int]]:
    found: dict[ImageId, tuple[str, int, Size, int]] = {}
    seen: set[tuple[str, int]] = set()
    for record in records(path, "images", images):
        image = record.identity("id")
        if image in found:
            raise record.wrong("id", "another image has it")
        video = record.text("movie" if "movie" in record.values else "video")
        timestamp = record.whole("timestamp", 0)
        if (video, timestamp) in seen:
            raise record.wrong("timestamp", f"another image is of this second of {video}")
        seen.add((video, timestamp))
        size = record.whole("height", 1), record.whole("width", 1)
        found[image] = video, timestamp, size, record.line
    return found


def _actions(record: Record, classes: int, names: dict[int, str]) -> list[int]:
    if "action_ids" in record.values:
        name, actions = "action_ids", record.values["action_ids"]
        if not isinstance(actions, list):
            raise record.wrong(name, "it must be a list of whole numbers")
    else:
        name, actions = "category_id", [record.whole("category_id", 1)]
    for action in actions:
        if isinstance(action, bool) or not isinstance(action, int) or not 1 <= action <= classes:
            raise record.wrong(name, f"actions are whole numbers, 1 to {classes}")
        if names and action not in names:
            raise record.wrong(name, f"{action} is not among the categories")
    return list(actions)
