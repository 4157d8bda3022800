"""Key frames of lists, whatever their format: who does what there, and where persons were found."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from videomae_fast.data.boxes.ava_files import read_boxes, read_exclusions
from videomae_fast.data.boxes.boxes import Boxes, Key, overlaps
from videomae_fast.data.boxes.geometry import Size, from_corner_and_size, resized
from videomae_fast.data.boxes.key_frame_files import Annotations, read_annotations
from videomae_fast.data.boxes.person_boxes import Persons, read_person_boxes
from videomae_fast.data.boxes.pickled import PICKLES, read_pickled_persons
from videomae_fast.data.errors import ListError, cut
from videomae_fast.recipes.box_source import BoxSource

Rows = NDArray[np.float64]


@dataclass(frozen=True)
class KeyFrameEntry:
    """A key frame of a list.

    Attributes:
        key: video and timestamp, as the list has them.
        seconds: when it is, in the time of the list.
        line: of the list that names it first; of JSON where its image begins.
        size: (height, width) of the frame whose pixels the boxes count, the last ones included;
            None where they are shares of the width and height.
        boxes: float64 [N, 4]: x1, y1, x2, y2.
        labels: bool [N, classes]; action k is column k - 1.
        persons: float64 [M, 4], those that a detector found.
        scores: float64 [M], of these.
    """

    key: Key
    seconds: float
    line: int
    size: Size | None
    boxes: Rows
    labels: NDArray[np.bool_]
    persons: Rows
    scores: Rows

    def in_frame(self, boxes: Rows, frame: Size) -> tuple[Tensor, Tensor]:
        """Boxes of this key frame in pixels of a decoded frame (height, width).

        Returns:
            float32 [M, 4], those that are not empty, and which they are, bool [N].
        """
        rows = torch.from_numpy(np.asarray(boxes, dtype=np.float32)).view(-1, 4)
        if self.size is not None:
            return resized(rows, self.size, frame), torch.ones(len(rows), dtype=torch.bool)
        low, high = rows[:, :2], rows[:, 2:]
        scale = torch.tensor([frame[1], frame[0]] * 2, dtype=torch.float32)
        return from_corner_and_size(torch.cat([low, high - low], 1) * scale, frame)

    def truth(self) -> Boxes:
        """The annotations as they are scored: shares, and a row for each action of each box."""
        row, column = self.labels.nonzero()
        shares = self.boxes
        if self.size is not None:
            height, width = self.size
            shares = (shares + np.array([0, 0, 1, 1])) / np.array([width, height] * 2)
        return Boxes(shares[row], column.astype(np.int64) + 1, np.ones(len(row)), self.line)


@dataclass(frozen=True)
class KeyFrameList:
    """What a list, and the files that belong to it, hold.

    Attributes:
        source: what it was read from.
        entries: in the order of the list, all of its key frames.
        names: of the actions that it names, by number.
        excluded: key frames that don't count.
        note: what was left out, "" where nothing was.
    """

    source: BoxSource
    entries: list[KeyFrameEntry]
    names: Mapping[int, str]
    excluded: frozenset[Key]
    note: str = ""

    def with_boxes(self) -> KeyFrameList:
        """The key frames that training can use.

        Raises:
            ListError: there is none.
        """
        kept = [one for one in self.entries if len(one.boxes) and one.key not in self.excluded]
        if not kept:
            raise ListError(f"{self.source.path}: has no key frame with a box")
        return replace(self, entries=kept)


def greatest_class(source: BoxSource) -> int:
    """The greatest number of an action in a list: of its categories, else of its boxes.

    Raises:
        ListError: it can't be read, or has neither.
    """
    if source.is_json:
        found = read_annotations(source.path)
        return max(found.names)
    boxes = read_boxes(source.path, "annotations").values()
    greatest = max((int(one.classes.max()) for one in boxes), default=0)
    if greatest < 1:
        raise ListError(f"{source.path}: has no box with an action")
    return greatest


def read_key_frames(source: BoxSource, classes: int, person_score: float) -> KeyFrameList:
    """Reads a list with its proposals and exclusions, and checks all of it.

    Args:
        source: the list.
        classes: how many actions there are.
        person_score: persons with a lower score are left out.

    Raises:
        ListError: something that can't be read or can't be; names file, line and remedy.
    """
    if source.is_json:
        found = read_annotations(source.path, classes)
        entries, note = _of_json(source, found, person_score)
        names: Mapping[int, str] = found.names
    else:
        entries, note = _of_csv(source, classes, person_score)
        names = {}
    if not entries:
        raise ListError(f"{source.path}: has no key frame")
    excluded = frozenset[Key]()
    if source.exclusions is not None:
        times = {
            (key[0], _seconds(key, source.exclusions, 0))
            for key in read_exclusions(source.exclusions)
        }
        excluded = frozenset(one.key for one in entries if (one.key[0], one.seconds) in times)
    return KeyFrameList(source, entries, names, excluded, note)


def _of_json(
    source: BoxSource, found: Annotations, person_score: float
) -> tuple[list[KeyFrameEntry], str]:
    notes = [f"{found.empty} boxes outside of their frame"] if found.empty else []
    persons: Mapping[int | str, Persons] = {}
    if source.proposals is not None:
        if source.proposals.suffix.lower() not in (".json", *PICKLES):
            raise ListError(
                f"{source.proposals}: a JSON list goes with proposals in JSON, or the same in a "
                "pickle (.pkl)"
            )
        proposals = read_person_boxes(source.proposals, found.frames, person_score)
        persons = proposals.persons
        notes += [f"{proposals.below} persons below {person_score:g}"] if proposals.below else []
    entries = []
    for frame in found.frames:
        mine = persons.get(frame.id)
        entries.append(
            KeyFrameEntry(
                (frame.video, f"{frame.timestamp:04d}"),  # as AVA's csv has it
                float(frame.timestamp),
                frame.line,
                frame.size,
                frame.boxes.astype(np.float64),
                frame.labels,
                np.empty((0, 4)) if mine is None else mine.boxes.astype(np.float64),
                np.empty(0) if mine is None else mine.scores.astype(np.float64),
            )
        )
    return entries, ", ".join(notes)


def _of_csv(
    source: BoxSource, classes: int, person_score: float
) -> tuple[list[KeyFrameEntry], str]:
    found = read_boxes(source.path, "annotations", classes)
    persons, note = _csv_persons(source, found, person_score)
    entries = []
    for key in [*found, *(key for key in persons if key not in found)]:
        boxes, labels = _multi_labelled(found.get(key), classes)
        mine = persons.get(key)
        line = found[key].line if key in found else 0
        entries.append(
            KeyFrameEntry(
                key,
                _seconds(key, source.path, line),
                line,
                None,
                boxes,
                labels,
                np.empty((0, 4)) if mine is None else mine.boxes,
                np.empty(0) if mine is None else mine.scores,
            )
        )
    return entries, note


def _csv_persons(
    source: BoxSource, found: Mapping[Key, Boxes], person_score: float
) -> tuple[dict[Key, Boxes], str]:
    """Persons by the list's own keys; of its videos also where nothing is annotated."""
    if source.proposals is None:
        return {}, ""
    if source.proposals.suffix.lower() == ".json":
        raise ListError(
            f"{source.proposals}: image_id in it stands for images of a JSON list, and "
            f"{source.path} is csv: give proposals as csv lines video,timestamp,x1,y1,x2,y2,,score "
            "or as mmaction2's pickle"
        )
    if source.proposals.suffix.lower() in PICKLES:
        given = read_pickled_persons(source.proposals)
    else:
        given = read_boxes(source.proposals, "persons")
    own = {(key[0], _seconds(key, source.path, one.line)): key for key, one in found.items()}
    videos = {video for video, _ in found}
    persons: dict[Key, Boxes] = {}
    below = elsewhere = 0
    for key, boxes in given.items():
        if key[0] not in videos:
            elsewhere += len(boxes.scores)
            continue
        kept = boxes.scores >= person_score
        below += int((~kept).sum())
        if kept.any():
            mine = own.get((key[0], _seconds(key, source.proposals, boxes.line)), key)
            persons[mine] = Boxes(boxes.boxes[kept], boxes.classes[kept], boxes.scores[kept])
    if not persons:
        raise ListError(
            f"{source.proposals}: no box is left for {source.path}: {below} have a score below "
            f"{person_score:g}, {elsewhere} are of other videos"
        )
    notes = (
        f"{below} persons below {person_score:g}" if below else "",
        f"{elsewhere} persons of other videos" if elsewhere else "",
    )
    return persons, ", ".join(note for note in notes if note)


def _seconds(key: Key, path: Path, line: int) -> float:
    """The time of a key frame; ListError where it is none."""
    try:
        seconds = float(key[1])
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        place = f"{path}:{line}" if line else f"{path}"
        raise ListError(f"{place}: timestamp {cut(key[1])!r} is no number of seconds from 0 on")
    return seconds


def _multi_labelled(boxes: Boxes | None, classes: int) -> tuple[Rows, NDArray[np.bool_]]:
    """A row for each box, where the file has one for each of its actions."""
    rows: dict[tuple[float, ...], set[int]] = {}
    if boxes is not None:
        for box, number in zip(boxes.boxes.tolist(), boxes.classes.tolist(), strict=True):
            rows.setdefault(tuple(box), set()).add(number - 1)
    labels = np.zeros((len(rows), classes), dtype=np.bool_)
    for row, mine in zip(labels, rows.values(), strict=True):
        row[list(mine)] = True
    return np.array(list(rows), dtype=np.float64).reshape(-1, 4), labels


def with_close_proposals(entry: KeyFrameEntry, least: float) -> KeyFrameEntry:
    """The key frame with the persons that overlap an annotated box, as annotated boxes too.

    Args:
        entry: with persons.
        least: IoU from which on a person gets the actions of the box that it overlaps most.

    Source: mmaction2's assignment of proposals in training (``MaxIoUAssigner``).
    """
    if not len(entry.boxes) or not len(entry.persons):
        return entry
    shared = overlaps(entry.persons, entry.boxes)
    best = shared.argmax(1)
    close = shared[np.arange(len(best)), best] >= least
    return replace(
        entry,
        boxes=np.concatenate([entry.boxes, entry.persons[close]]),
        labels=np.concatenate([entry.labels, entry.labels[best[close]]]),
    )


def names_of(lists: Sequence[KeyFrameList], classes: int) -> dict[int, str]:
    """Names of all actions: those that the lists have, and their numbers elsewhere.

    Raises:
        ListError: two lists name an action otherwise.
    """
    names: dict[int, str] = {}
    for one in lists:
        for number, name in one.names.items():
            if names.setdefault(number, name) != name:
                raise ListError(
                    f"{one.source.path}: action {number} is {name!r}, and {names[number]!r} in "
                    "another list: number the actions alike"
                )
    return {number: names.get(number, str(number)) for number in range(1, classes + 1)}
