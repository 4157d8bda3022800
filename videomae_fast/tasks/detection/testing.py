"""Tests a detector of actions over lists of key frames: by any number of processes, resumable."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from videomae_fast.data.boxes.ava_files import csv_lines
from videomae_fast.data.boxes.clips import KeyFrameClips, key_frame_reading
from videomae_fast.data.boxes.detection_views import DetectionViews
from videomae_fast.data.failures import Failure
from videomae_fast.data.files import write_lines
from videomae_fast.errors import UsageError, VideoMAEFastError
from videomae_fast.evaluation.detection import (
    KeyFrameScores,
    ScoreSettings,
    detected_lists,
    looked_at,
    precision_of,
    score_key_frames,
)
from videomae_fast.evaluation.detection_precision import Precision
from videomae_fast.interop import ModelWeights, SourceHints, read_weights
from videomae_fast.interop.weights.description import description_of
from videomae_fast.models.detector import ActionDetector
from videomae_fast.recipes.box_source import BoxSource
from videomae_fast.tasks.detection.history import validated
from videomae_fast.tasks.detection.key_frames import Actions, check_scored, read_lists
from videomae_fast.tasks.initial import digests
from videomae_fast.tasks.score_journal import ScoreJournal, file_digest, from_text
from videomae_fast.tasks.testing_into import testing_into
from videomae_fast.training.checkpoint import Log
from videomae_fast.training.parallel.world import World


@dataclass(frozen=True)
class DetectionTest:
    """How a detector is tested.

    Attributes:
        frames, stride: of a clip.
        short_side: that frames are resized to, in pixels.
        person_score: detected persons with a lower score are left out.
        label_map: file with the actions that count; None: all do.
        scores: how key frames are scored.
        decoder: of videos.
        device: "auto", "cpu" or "cuda".
        heads: of attention, that somebody told of weights that don't say it; None: nobody did.
    """

    frames: int
    stride: int
    short_side: int
    person_score: float
    label_map: str | None
    scores: ScoreSettings
    decoder: str = "pyav"
    device: str = "auto"
    heads: int | None = None


@dataclass(frozen=True)
class Detected:
    """What a test found.

    Attributes:
        precision: the mean over actions, and each.
        clips: the key frames that were tested.
        actions: of the model.
        scored: those that a person is in, in the order of the lists.
        failures: of those that could not be read, which count on neither side.
    """

    precision: Precision
    clips: KeyFrameClips
    actions: Actions
    scored: tuple[KeyFrameScores, ...]
    failures: tuple[Failure, ...]


def detector_weights(
    path: Path, frames: int | None, image_size: int | None, heads: int | None = None
) -> ModelWeights:
    """The weights to test.

    Args:
        path: a file or folder.
        frames, image_size: that official weights' positions are for; None: the official ones.
        heads: of attention, where the weights don't say it; None: the official size's.

    Raises:
        UsageError: they hold no detector.
        WeightsError: they can't be read.
    """
    says_what_it_is = path.is_file() and description_of(path) is not None
    hints = SourceHints(heads, frames=frames, image_size=image_size, detector=not says_what_it_is)
    weights = read_weights(path, hints)
    if weights.kind != "detector":
        raise UsageError(
            f"{path}: holds {weights.kind} weights and no detector: train one from them "
            "(videomae-fast detect train --init)"
        )
    return weights


def score_detector(
    path: Path,
    weights: ModelWeights,
    sources: Sequence[BoxSource],
    settings: DetectionTest,
    *,
    output: Path,
    log: Log = print,
) -> Detected:
    """Scores every key frame of lists once, and goes on where it was stopped.

    Under ``torchrun`` each process takes its share. ``output`` then holds ``detections.csv`` (as
    AVA's, of all actions), ``result.json``, ``classes.csv`` (a row per action) and
    ``failures.jsonl``.

    Args:
        path: what the weights were read from.
        weights: a detector's.
        sources: the lists.
        settings: how.
        output: folder, made where missing; one of another test is refused.
        log: takes progress lines, in the main process only.

    Returns:
        The result, on every process.

    Raises:
        UsageError, ListError: something that can't be, or `output` is of another test.
        VideoMAEFastError: not one key frame could be read.
    """
    with testing_into(output, settings.device) as world:
        made_from = partial(_made_from, path, weights, sources, settings)
        told = log if world.is_main else _quiet
        result = _tested(weights, sources, settings, world, output, made_from, told)
        if world.is_main:
            _write(result, output)
        world.agree(0)
        return result


def _tested(
    weights: ModelWeights,
    sources: Sequence[BoxSource],
    settings: DetectionTest,
    world: World,
    output: Path,
    made_from: Callable[[], dict[str, Any]],
    log: Log,
) -> Detected:
    lists, actions = read_lists(
        sources,
        classes=weights.classes,
        label_map=settings.label_map,
        person_score=settings.person_score,
    )
    actions = _named(actions, weights)
    check_scored(lists, actions)
    views = DetectionViews(settings.short_side, crop=min(224, settings.short_side))
    reading = key_frame_reading(
        frames=settings.frames, decoder=settings.decoder, views=views, training=False
    )
    clips = KeyFrameClips(lists, reading, stride=settings.stride)
    log(clips.describe())
    for each, detected in zip(lists, detected_lists(lists), strict=True):
        if not detected:
            log(f"{each.source.label}: no proposals, actions are looked for in annotated boxes")
    with ScoreJournal(output, world, made_from) as journal:
        failed = _score(weights, clips, settings, world, journal, log)
    failed = [one for part in world.gather(failed) for one in part]
    result = _every(clips, journal, failed, actions.count) if world.is_main else None
    every: list[KeyFrameScores] = world.from_main(result)
    failures = tuple(one.failure for one in every if one.failure is not None)
    for failure in failures:
        log(f"left out: {failure}")
    if len(failures) == len(every):
        first = f"; the first: {failures[0]}" if failures else ": no person is in them"
        raise VideoMAEFastError(f"none of {len(every)} key frames could be read{first}")
    try:
        precision = precision_of(lists, every, actions.counted)
    except ValueError as error:
        raise UsageError(f"{', '.join(one.source.label for one in lists)}: {error}") from None
    return Detected(precision, clips, actions, tuple(every), failures)


def _score(
    weights: ModelWeights,
    clips: KeyFrameClips,
    settings: DetectionTest,
    world: World,
    journal: ScoreJournal,
    log: Log,
) -> list[KeyFrameScores]:
    """Scores this process's share of what is left; returns what could not be read."""
    model = weights.model().to(world.device)
    assert isinstance(model, ActionDetector)
    draws = looked_at(clips)
    todo = [draw for draw in draws if draw.position not in journal.before]
    if len(todo) < len(draws):
        log(f"{len(draws) - len(todo)} of {len(draws)} key frames were scored before")
    mine = todo[world.rank :: world.size]
    failed = []
    scored = score_key_frames(model, clips, mine, settings.scores, world.device)
    for number, one in enumerate(scored, 1):
        if one.failure is None:
            journal.add(one.place, shares=one.shares, scores=one.scores, loss=one.loss)
        else:
            failed.append(one)
        if number % 1000 == 0:
            log(f"{number} of this process's {len(mine)} key frames")
    return failed


def _every(
    clips: KeyFrameClips, journal: ScoreJournal, failed: Sequence[KeyFrameScores], classes: int
) -> list[KeyFrameScores]:
    """All that was scored now and before, and what could not be, in the order of the lists."""
    found = {one.place: one for one in failed}
    wanted = {draw.position for draw in looked_at(clips)} - found.keys()
    for place, said in journal.scored(wanted).items():
        shares = from_text(said["shares"]).reshape(-1, 4)
        scores = from_text(said["scores"]).reshape(-1, classes)
        found[place] = KeyFrameScores(place, shares, scores, said["loss"])
    return [found[place] for place in sorted(found)]


def _made_from(
    path: Path, weights: ModelWeights, sources: Sequence[BoxSource], settings: DetectionTest
) -> dict[str, Any]:
    """What the scores depend on, and which key frames and actions count."""
    said = asdict(settings)
    scores, label_map = said.pop("scores"), said.pop("label_map")
    del said["device"]
    if said["heads"] is None:  # as tests of earlier versions say nothing of them
        del said["heads"]
    for name in ("batch", "workers", "time_limit"):
        del scores[name]
    return {
        **said,
        **scores,
        "label_map": None if label_map is None else file_digest(Path(label_map)),
        "weights": digests(path),
        "positions": [weights.config.frames, weights.config.image_size],
        "lists": [_said(one) for one in sources],
    }


def _said(source: BoxSource) -> dict[str, Any]:
    """A list's options; of its files what they hold."""
    said = asdict(source)
    del said["name"], said["weight"]
    for name, value in said.items():
        if isinstance(value, Path):
            said[name] = str(value) if name == "root" else file_digest(value)
    return said


def _named(actions: Actions, weights: ModelWeights) -> Actions:
    """The actions by the weights' names, where neither lists nor label map have others."""
    if weights.labels is None:
        return actions
    own = dict(enumerate(weights.labels, 1))
    names = {n: own[n] if name == str(n) else name for n, name in actions.names.items()}
    return Actions(actions.count, names, {n: names[n] for n in actions.counted})


def _write(result: Detected, output: Path) -> None:
    numbers = validated(0, result.precision.mean, result.scored)
    said = {
        "map": result.precision.mean,
        "key_frames": numbers.key_frames,
        "boxes": numbers.boxes,
        "failed": numbers.failed,
        "loss": numbers.loss,
    }
    write_lines(output / "detections.csv", _detections(result))
    write_lines(output / "failures.jsonl", [one.to_json() + "\n" for one in result.failures])
    write_lines(output / "classes.csv", _rows(result.precision))
    write_lines(output / "result.json", [json.dumps(said, indent=2) + "\n"])


def _detections(result: Detected) -> Iterator[str]:
    """Lines of AVA's csv."""
    entries = [entry for one in result.clips.lists for entry in one.entries]
    numbers = range(1, result.actions.count + 1)
    for one in result.scored:
        key = entries[one.place].key
        for line in csv_lines(key, one.shares, one.scores, numbers):
            yield line + "\n"


def _rows(precision: Precision) -> Iterator[str]:
    """The table of actions as csv."""
    yield "action,name,annotated,detections,precision\n"
    for number, row in precision.classes.items():
        name = '"' + row.name.replace('"', '""') + '"'
        found = "" if row.precision is None else f"{row.precision:.6f}"
        yield f"{number},{name},{row.annotated},{row.detections},{found}\n"


def _quiet(_: str) -> None:
    """The log of all processes but the main one."""
