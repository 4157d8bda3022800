"""Actions of persons in key frames: scores of each box, and their precision.

A key frame's scores depend on it alone: clips of other sizes are not padded to one another, but
each to whole patches, so that batches, processes and order change nothing but what a matmul of
other rows rounds differently.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from videomae_fast.data.boxes.ava_files import detected_shares
from videomae_fast.data.boxes.batches import WholeClip, whole_batches
from videomae_fast.data.boxes.boxes import Boxes, Key
from videomae_fast.data.boxes.clips import KeyFrameClips
from videomae_fast.data.boxes.entries import KeyFrameList
from videomae_fast.data.failures import Failure
from videomae_fast.data.loader.pipeline import TIME_LIMIT
from videomae_fast.data.order import Draw
from videomae_fast.evaluation.detection_precision import Precision, mean_average_precision
from videomae_fast.models.detection_loss import detection_loss
from videomae_fast.models.detector import ActionDetector

DECIMALS = 5
"""Of boxes and scores, in files and in the score: officially both pass through a file with these,
which makes ties."""


@dataclass(frozen=True)
class KeyFrameScores:
    """What a detector says of a key frame.

    Attributes:
        place: of the key frame among all of the lists.
        shares: float64 [N, 4], the boxes in shares of the width and height.
        scores: float64 [N, classes].
        loss: summed over boxes, mean over classes; NaN where nothing is annotated of them.
        failure: why it could not be read, or None.
    """

    place: int
    shares: NDArray[np.float64]
    scores: NDArray[np.float64]
    loss: float
    failure: Failure | None = None


@dataclass(frozen=True)
class ScoreSettings:
    """How key frames are scored.

    Attributes:
        batch: clips at a time.
        widened: shares of a box's width and height by which the model gets it wider.
        person_scores_count: a person's score is a factor of those of its actions.
        bf16: compute under bf16 autocast.
        workers: loader processes.
        time_limit: seconds for one video.
    """

    batch: int = 8
    widened: tuple[float, float] = (0.1, 0.05)
    person_scores_count: bool = True
    bf16: bool = False
    workers: int = 0
    time_limit: float | None = TIME_LIMIT


def detected_lists(lists: Sequence[KeyFrameList]) -> list[bool]:
    """For each list whether actions are looked for in detected persons: where it has some."""
    return [one.source.proposals is not None for one in lists]


def looked_at(clips: KeyFrameClips) -> list[Draw]:
    """The key frames that count and have a person."""
    detected, found = detected_lists(clips.lists), []
    for draw in clips.every():
        entry = clips.entry(draw)
        boxes = entry.persons if detected[draw.source] else entry.boxes
        if len(boxes) and entry.key not in clips.lists[draw.source].excluded:
            found.append(draw)
    return found


def score_key_frames(
    model: ActionDetector,
    clips: KeyFrameClips,
    draws: Sequence[Draw],
    settings: ScoreSettings,
    device: torch.device,
) -> Iterator[KeyFrameScores]:
    """Gives the scores of key frames, in the order of the draws.

    Args:
        model: on `device`; it is in evaluation mode meanwhile.
        clips: whole frames.
        draws: of :func:`looked_at`, or some of them.
        settings: how they are scored.
        device: of the model.

    Raises:
        ValueError: logits that are not finite.
    """
    training = model.training
    model.eval()
    batches = whole_batches(
        clips,
        draws,
        batch=settings.batch,
        widened=settings.widened,
        detected=detected_lists(clips.lists),
        workers=settings.workers,
        device=device,
        time_limit=settings.time_limit,
        crop_on="device" if device.type == "cuda" else "worker",
    )
    try:
        with closing(batches):  # type: ignore[type-var]
            for batch in batches:
                alike: dict[tuple[int, ...], list[int]] = defaultdict(list)
                for i, clip in enumerate(batch.clips):
                    if isinstance(clip, WholeClip):
                        alike[tuple(clip.frames.shape)].append(i)
                found: dict[int, KeyFrameScores] = {}
                for rows in alike.values():
                    part = [clip for i in rows if isinstance(clip := batch.clips[i], WholeClip)]
                    places = [batch.draws[i].position for i in rows]
                    scored = _scored(model, part, places, settings)
                    found |= dict(zip(rows, scored, strict=True))
                for i, (draw, clip) in enumerate(zip(batch.draws, batch.clips, strict=True)):
                    if isinstance(clip, Failure):
                        none = np.empty((0, 4)), np.empty((0, model.head.out_features))
                        found[i] = KeyFrameScores(draw.position, *none, float("nan"), clip)
                    yield found[i]
    finally:
        model.train(training)


@torch.no_grad()
def _scored(
    model: ActionDetector, clips: Sequence[WholeClip], places: Sequence[int], how: ScoreSettings
) -> Iterator[KeyFrameScores]:
    """The scores of clips of one size."""
    frames = model.batch([clip.frames for clip in clips])
    boxes = [clip.widened.to(frames.device) for clip in clips]
    with torch.autocast(frames.device.type, torch.bfloat16, enabled=how.bf16):
        logits = model(frames, boxes).float().cpu()
    parts = logits.split([len(clip.boxes) for clip in clips])
    for clip, place, rows in zip(clips, places, parts, strict=True):
        if not rows.isfinite().all():
            raise ValueError(f"key frame {place} of the lists: the model's logits are not finite")
        scores = rows.double().sigmoid()
        if how.person_scores_count:
            scores = scores * clip.scores.double()[:, None]
        loss = float("nan") if clip.labels is None else float(detection_loss(rows, clip.labels))
        (height, width), (h, w) = clip.frame, clip.frames.shape[1:3]
        shares = detected_shares(clip.boxes.numpy(), clip=(w, h), frame=(width, height))
        yield KeyFrameScores(place, shares.round(DECIMALS), scores.numpy().round(DECIMALS), loss)


def boxes_of(one: KeyFrameScores) -> Boxes:
    """Scores as detections: each box with each action."""
    count, classes = one.scores.shape
    return Boxes(
        one.shares.repeat(classes, 0), np.tile(np.arange(1, classes + 1), count), one.scores.ravel()
    )


def precision_of(
    lists: Sequence[KeyFrameList], scored: Iterable[KeyFrameScores], names: Mapping[int, str]
) -> Precision:
    """AVA's precision of scores over the key frames of lists.

    Key frames that could not be read don't count; those without a person do, with what is annotated
    there.

    Args:
        lists: that were scored.
        scored: of their key frames, in any order.
        names: of the actions that count, by number.

    Raises:
        ValueError: nothing that counts is annotated.
    """
    entries = [entry for one in lists for entry in one.entries]
    found = sorted(scored, key=lambda one: one.place)
    excluded: set[Key] = {key for one in lists for key in one.excluded}
    excluded |= {entries[one.place].key for one in found if one.failure is not None}
    return mean_average_precision(
        {entry.key: entry.truth() for entry in entries if len(entry.boxes)},
        {entries[one.place].key: boxes_of(one) for one in found if one.failure is None},
        names,
        excluded=excluded,
    )
