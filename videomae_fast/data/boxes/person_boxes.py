"""Boxes of persons that a detector found: where actions are looked for in validation."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from videomae_fast.data.boxes.json_fields import ImageId, load_json, records
from videomae_fast.data.boxes.key_frame_files import Corners, KeyFrame, boxes_within
from videomae_fast.data.boxes.pickled import PICKLES, read_pickled_records
from videomae_fast.data.errors import ListError


@dataclass(frozen=True)
class Persons:
    """Persons of a key frame.

    Attributes:
        boxes: float32 [N, 4]: x1, y1, x2, y2 in pixels of the video, within the frame.
        scores: float32 [N], 0 to 1.
    """

    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]


@dataclass(frozen=True)
class Proposals:
    """What a file holds for some key frames.

    Attributes:
        persons: by the id of the key frame; frames without a person are not there.
        below: boxes that were left out for their score.
        elsewhere: those of other key frames.
        empty: those of which nothing lies within their frame.
    """

    persons: dict[ImageId, Persons]
    below: int
    elsewhere: int
    empty: int


def read_person_boxes(
    path: str | Path, frames: Iterable[KeyFrame], threshold: float = 0.8
) -> Proposals:
    """The persons of key frames: a list of ``image_id``, ``bbox`` and ``score``, JSON or a pickle.

    Args:
        path: of the file.
        frames: those that are wanted.
        threshold: the least score that is kept.

    Raises:
        ListError: something in it is missing or can't be, or no box is left: file, place, remedy.

    Source: the data sets of the official AVA code.
    """
    path = Path(path)
    sizes = {frame.id: frame.size for frame in frames}
    rows: dict[ImageId, list[tuple[Corners, float]]] = {}
    below = elsewhere = empty = 0
    content = read_pickled_records(path) if path.suffix.lower() in PICKLES else load_json(path)
    for record in records(path, "", content):
        image, box, score = record.identity("image_id"), record.box("bbox"), record.share("score")
        if image not in sizes:
            elsewhere += 1
        elif score < threshold:
            below += 1
        else:
            rows.setdefault(image, []).append((box, score))
    persons = {}
    for image, found in rows.items():
        boxes, kept = boxes_within([box for box, _ in found], sizes[image])
        empty += len(kept) - len(boxes)
        if len(boxes):
            scores = np.array([score for _, score in found], dtype=np.float32)
            persons[image] = Persons(boxes, scores[kept])
    if not persons:
        raise ListError(
            f"{path}: no box is left: {below} have a score below {threshold}, {elsewhere} are of "
            f"other key frames, {empty} lie outside of theirs"
        )
    return Proposals(persons, below, elsewhere, empty)
