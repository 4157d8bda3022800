"""AVA's files: boxes as csv, label maps, key frames that don't count.

A line of boxes is ``video,timestamp,x1,y1,x2,y2,class`` without a header, in shares of the width
and height; detections have a score behind it. Annotations of AVA have a person there instead.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from videomae_fast.data.boxes.boxes import Boxes, Key
from videomae_fast.data.errors import ListError, cut

Holds = Literal["annotations", "detections", "persons"]


def read_boxes(path: str | Path, holds: Holds, classes: int | None = None) -> dict[Key, Boxes]:
    """The boxes of a csv file, by key frame, in the order of the file.

    Lines of annotations without a class (a key frame without any action) are left out. Detected
    persons may have an empty class, or none before their score: it is 0 then.

    Args:
        path: of the file.
        holds: what its lines are.
        classes: how many there are, with numbers from 1; None checks none.

    Raises:
        ListError: a line that can't be read, or a class that is none; it names the file and the
            line.
    """
    path = Path(path)
    lists: dict[Key, list[tuple[list[float], int, float]]] = {}
    first: dict[Key, int] = {}
    wanted = {"annotations": (7, 8), "detections": (8,), "persons": (7, 8)}[holds]
    try:
        with path.open(encoding="utf-8", newline="") as file:
            for number, row in enumerate(csv.reader(file), 1):
                if not row:
                    continue
                if holds == "annotations" and len(row) in (2, 7, 8) and not any(row[2:]):
                    continue
                if len(row) not in wanted:
                    raise ListError(
                        f"{path}:{number}: {len(row)} values, where {holds} have "
                        f"{' or '.join(map(str, wanted))}: video,timestamp,x1,y1,x2,y2,class"
                        + ("" if holds == "annotations" else ",score")
                    )
                key = row[0], row[1]
                first.setdefault(key, number)
                lists.setdefault(key, []).append(_line(path, number, row, holds, classes))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ListError(f"{path}: can't be read: {error}") from error
    return {
        key: Boxes(
            np.array([box for box, _, _ in rows], dtype=np.float64),
            np.array([number for _, number, _ in rows], dtype=np.int64),
            np.array([score for _, _, score in rows], dtype=np.float64),
            first[key],
        )
        for key, rows in lists.items()
    }


def _line(
    path: Path, number: int, row: Sequence[str], holds: Holds, classes: int | None
) -> tuple[list[float], int, float]:
    try:
        box = [float(value) for value in row[2:6]]
        label = 0 if holds == "persons" else int(row[6])
        score = 1.0 if holds == "annotations" else float(row[-1])
    except ValueError as error:
        raise ListError(f"{path}:{number}: {cut(str(error))}") from None
    if not np.isfinite([*box, score]).all():
        raise ListError(
            f"{path}:{number}: a box or score is no finite number: {cut(','.join(row))}"
        )
    if holds != "detections" and not all(-1e-6 <= value <= 1 + 1e-6 for value in box):
        raise ListError(
            f"{path}:{number}: boxes are in shares of the width and height, 0 to 1, not pixels: "
            f"{cut(','.join(row[2:6]))}"
        )
    if not -(2**31) <= label < 2**31:
        raise ListError(f"{path}:{number}: class {row[6][:20]} is no class")
    if holds == "persons" and not 0 <= score <= 1:
        raise ListError(f"{path}:{number}: score {score:g} of a person is not 0 to 1")
    if classes is not None and not 1 <= label <= classes:
        raise ListError(
            f"{path}:{number}: class {label} is none of 1 to {classes}: correct the line, or say "
            "how many classes there are (data.classes)"
        )
    return box, label, score


def read_label_map(path: str | Path) -> dict[int, str]:
    """Names by id of a label map: ``item { name: "sit" id: 11 }``, or ``label_id``.

    Raises:
        ListError: it can't be read, or has no class, or an id twice.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ListError(f"{path}: can't be read: {error}") from error
    names: dict[int, str] = {}
    for item in re.findall(r"\{(.*?)\}", text, re.DOTALL):
        name = re.search(r'\bname:\s*"([^"]*)"', item)
        number = re.search(r"\b(?:label_)?id:\s*(\d{1,9})\b", item)
        if name is None or number is None:
            raise ListError(f"{path}: an item without name or id: {cut(' '.join(item.split()))}")
        if int(number[1]) in names:
            raise ListError(f"{path}: id {cut(number[1])} occurs twice")
        names[int(number[1])] = name[1]
    if not names:
        raise ListError(f'{path}: no class there; one is item {{ name: "sit" id: 11 }}')
    return names


def read_exclusions(path: str | Path) -> set[Key]:
    """Key frames that don't count: a line ``video,timestamp`` for each.

    Raises:
        ListError: it can't be read, or a line of other than two values.
    """
    path = Path(path)
    found: set[Key] = set()
    try:
        with path.open(encoding="utf-8", newline="") as file:
            for number, row in enumerate(csv.reader(file), 1):
                if not row:
                    continue
                if len(row) != 2:
                    raise ListError(f"{path}:{number}: {len(row)} values, not video,timestamp")
                found.add((row[0], row[1]))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ListError(f"{path}: can't be read: {error}") from error
    return found


def detected_shares(
    boxes: NDArray[Any], *, clip: tuple[int, int], frame: tuple[int, int]
) -> NDArray[np.float64]:
    """Boxes of a clip to shares of the width and height, float64 [N, 4].

    Args:
        boxes: float [N, 4]: x1, y1, x2, y2 in pixels of the clip, the last ones included.
        clip, frame: (width, height) of the clip and of the video, in pixels.

    Source: the csv writer of the official AVA code.
    """
    scale = np.array([frame[0] / clip[0], frame[1] / clip[1]] * 2)
    size = np.array([*frame, *frame], dtype=np.float64)
    places = np.asarray(boxes, dtype=np.float64) * scale
    places[:, 2:] += 1
    shares: NDArray[np.float64] = (places / size).clip(0.0, 1.0)
    return shares


def csv_lines(
    key: Key, shares: NDArray[np.float64], scores: NDArray[Any], numbers: Iterable[int]
) -> Iterator[str]:
    """Lines of a csv of detections, without their ends: every box with every class.

    5 decimals, as the official AVA code writes: they make ties, which count.

    Args:
        key: video and timestamp.
        shares: float64 [N, 4].
        scores: float [N, K].
        numbers: ids of the K classes.
    """
    ids = list(numbers)
    for box, row in zip(shares.tolist(), scores.tolist(), strict=True):
        place = ",".join(f"{value:.5f}" for value in box)
        for number, score in zip(ids, row, strict=True):
            yield f"{key[0]},{key[1]},{place},{number},{score:.5f}"
