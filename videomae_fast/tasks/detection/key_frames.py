"""The lists of a detection run, read and checked: key frames, actions, and what counts."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from videomae_fast.data.boxes.ava_files import read_label_map
from videomae_fast.data.boxes.clips import KeyFrameClips, key_frame_reading
from videomae_fast.data.boxes.detection_views import DetectionViews
from videomae_fast.data.boxes.entries import (
    KeyFrameList,
    greatest_class,
    names_of,
    read_key_frames,
    with_close_proposals,
)
from videomae_fast.data.cache.videos import cache_at
from videomae_fast.data.errors import ListError
from videomae_fast.errors import UsageError
from videomae_fast.recipes.box_source import BoxSource
from videomae_fast.recipes.detection import DetectConfig


@dataclass(frozen=True)
class Actions:
    """The actions of a run.

    Attributes:
        count: outputs of the model; action k is output k - 1.
        names: of all, by number.
        counted: of those that are scored.
    """

    count: int
    names: dict[int, str]
    counted: dict[int, str]

    @property
    def labels(self) -> tuple[str, ...]:
        """Names for a weights file, in the order of the outputs."""
        return tuple(self.names[number] for number in range(1, self.count + 1))


def read_lists(
    sources: Sequence[BoxSource], *, classes: int | None, label_map: str | None, person_score: float
) -> tuple[list[KeyFrameList], Actions]:
    """Lists with what belongs to them, and the actions that they have.

    Args:
        sources: the lists; the first ones say how many actions there are, where nothing else does.
        classes: how many actions there are; None: as the label map or the lists say.
        label_map: file with the actions that count; None: all do.
        person_score: detected persons with a lower score are left out.

    Raises:
        ListError, UsageError: something that can't be read or can't be.
    """
    wanted = None if label_map is None else read_label_map(label_map)
    if classes is None:
        classes = max(wanted) if wanted else max(map(greatest_class, sources))
    if wanted and max(wanted) > classes:
        raise UsageError(
            f"data.label_map {label_map}: has action {max(wanted)}, and data.classes is {classes}"
        )
    lists = [read_key_frames(source, classes, person_score) for source in sources]
    names = {**names_of(lists, classes), **(wanted or {})}
    return lists, Actions(classes, names, wanted or names)


def training_clips(config: DetectConfig, lists: Sequence[KeyFrameList]) -> KeyFrameClips:
    """The augmented clips of training lists.

    Raises:
        ListError, UsageError: a list without boxes or videos, or settings that can't be.
    """
    data = config.data
    kept = [one.with_boxes() for one in lists]
    if data.add_proposals is not None:
        kept = [
            KeyFrameList(
                one.source,
                [with_close_proposals(entry, data.add_proposals) for entry in one.entries],
                one.names,
                one.excluded,
                one.note,
            )
            for one in kept
        ]
    return _clips(config, kept, training=True)


def validation_clips(
    config: DetectConfig, lists: Sequence[KeyFrameList], actions: Actions
) -> KeyFrameClips | None:
    """Whole frames of validation lists, None without a list.

    Raises:
        ListError, UsageError: nothing there can be scored, or as :func:`training_clips`.
    """
    if not lists:
        return None
    check_scored(lists, actions)
    return _clips(config, lists, training=False)


def check_scored(lists: Sequence[KeyFrameList], actions: Actions) -> None:
    """Checks that lists can be scored, before anything is computed.

    Raises:
        ListError: two lists have the same key frame, or no action that counts is annotated in any.
    """
    columns = [number - 1 for number in actions.counted]
    if not any(
        entry.labels[:, columns].any()
        for one in lists
        for entry in one.entries
        if entry.key not in one.excluded
    ):
        raise ListError(
            f"{', '.join(str(one.source.path) for one in lists)}: no action that counts is "
            "annotated, so nothing can be scored: look at the numbers of the label map"
        )
    seen: dict[tuple[str, float], KeyFrameList] = {}
    for one in lists:
        for entry in one.entries:
            other = seen.setdefault((entry.key[0], entry.seconds), one)
            if other is not one:
                raise ListError(
                    f"{one.source.path}:{entry.line}: key frame {entry.seconds:g} of "
                    f"{entry.key[0]} is one of {other.source.path} too: take it out of one of them"
                )


def digests_of(lists: Sequence[KeyFrameList], prefix: str = "") -> dict[str, list[str]]:
    """Checksums of what each list holds, in its order; the same wherever lists and videos lie.

    Args:
        lists: as they were read.
        prefix: of the names.

    Returns:
        ``key_frames_sha256``, ``boxes_sha256`` (with their actions) and ``persons_sha256`` (that
        were detected), of each list.
    """
    return {
        f"{prefix}key_frames_sha256": [
            _digest_of([entry.key, entry.seconds] for entry in one.entries) for one in lists
        ],
        f"{prefix}boxes_sha256": [
            _digest_of([entry.size, entry.boxes, entry.labels] for entry in one.entries)
            for one in lists
        ],
        f"{prefix}persons_sha256": [
            _digest_of([entry.persons, entry.scores] for entry in one.entries) for one in lists
        ],
    }


def _digest_of(rows: Iterable[Sequence[Any]]) -> str:
    found = hashlib.sha256()
    for one in (value for row in rows for value in row):
        if isinstance(one, np.ndarray):
            found.update(f"{one.shape}".encode() + one.tobytes())
        else:
            found.update(json.dumps(one).encode())
    return found.hexdigest()


def _clips(config: DetectConfig, lists: Sequence[KeyFrameList], *, training: bool) -> KeyFrameClips:
    data, model = config.data, config.model
    assert isinstance(model.image_size, int)
    cached = cache_at(data.cache, data.cache_gb)
    augment = config.augment
    views = DetectionViews(
        data.short_side,
        model.image_size,
        augment.hue,
        augment.saturation,
        augment.value,
        augment.flip,
        augment.boxes,
        data.longest_short_side,
    )
    reading = key_frame_reading(
        frames=model.frames,
        samples=data.samples if training else 1,
        decoder=data.decoder,
        cache=cached,
        views=views,
        training=training,
    )
    try:
        return KeyFrameClips(
            lists,
            reading,
            stride=data.stride,
            seed=config.run.seed,
            epoch_size=data.epoch_size if training else None,
            order=data.order,
            block=data.block if training else 1,
            window=data.window,
        )
    except ValueError as error:
        raise UsageError(str(error)) from None
