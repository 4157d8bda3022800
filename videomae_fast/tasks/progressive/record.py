"""What is written of a stage: what it was, what it began from, and what came out of it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from videomae_fast.data.files import write_lines
from videomae_fast.data.lists.sources import digest_of
from videomae_fast.data.store.opening import is_store
from videomae_fast.errors import UsageError
from videomae_fast.recipes.fields import settings
from videomae_fast.recipes.plain import LIST_FIELDS, from_plain, to_plain
from videomae_fast.recipes.plan import TASKS, Stage, StageConfig
from videomae_fast.recipes.source import Source

FILE: Final = "stage.json"
_FORMAT: Final = 1
_DECISIVE: Final = ("schedule", "model", "distillation")
"""Sections whose fields decide what a finished stage is, though a run may go on with others."""


@dataclass(frozen=True)
class Origin:
    """The weights that a stage began from. sha256: of the tensors, by the stage that made them."""

    stage: str
    weights: str
    sha256: str


@dataclass(frozen=True)
class Scores:
    """Shares of videos, 0 to 1. step: after which they were found, None for a test."""

    top1: float | None
    top5: float | None
    videos: int
    failed: int
    step: int | None = None
    mean_class: float | None = None
    views: str = "1"


@dataclass(frozen=True)
class Outcome:
    """What a finished stage leaves.

    Attributes:
        steps: of the run; 0 for a test.
        checkpoint: name of the last one, "" for a test.
        sha256: of the weights, by "last" and "best".
        loss: of the last step that had one.
        head: what became of the head of the weights that it began from.
        scores: of the last validation ("validation"), the best one ("best"), or a test ("test").
    """

    steps: int
    checkpoint: str
    sha256: Mapping[str, str]
    loss: float | None
    head: str
    scores: Mapping[str, Scores]


@dataclass(frozen=True)
class Record:
    """``stage.json``.

    Attributes:
        task: of the stage.
        config: its fields, as plain values.
        lists: SHA-256 of the lists' files, by the field that names them.
        origin: None for a stage that began anew, or from weights that are no stage's.
        outcome: None while it is not finished.
    """

    task: str
    config: Mapping[str, Any]
    lists: Mapping[str, Sequence[str]]
    origin: Origin | None
    outcome: Outcome | None = None

    def write(self, folder: Path) -> None:
        said = {"format": _FORMAT, **asdict(self)}
        write_lines(folder / FILE, [json.dumps(said, indent=2) + "\n"])


def record_of(stage: Stage, origin: Origin | None) -> Record:
    """The record of a stage that begins."""
    lists = {
        name: [_sha256(source) for source in _lists(stage.config, name)]
        for name in LIST_FIELDS.keys() & settings(type(stage.config)).keys()
    }
    return Record(stage.task, to_plain(stage.config), lists, origin)


def read_record(folder: Path) -> Record | None:
    """The record in a stage's folder, None where there is none.

    Raises:
        UsageError: it can't be read.
    """
    file = folder / FILE
    if not file.exists():
        return None
    try:
        said = json.loads(file.read_text(encoding="utf-8"))
        if said.pop("format") != _FORMAT:
            raise ValueError("another format")
        if said["origin"] is not None:
            said["origin"] = Origin(**said["origin"])
        if said["outcome"] is not None:
            outcome = said["outcome"]
            outcome["scores"] = {k: Scores(**v) for k, v in outcome["scores"].items()}
            said["outcome"] = Outcome(**outcome)
        return Record(**said)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(
            f"{file}: can't be read ({type(error).__name__}: {error}): move the stage's folder "
            "away to make the stage again"
        ) from None


def check_unchanged(stage: Stage, record: Record, folder: Path) -> None:
    """Checks that a finished stage is the one that the plan has now.

    What changes nothing that is computed is free, and where lists lie, if they are the same.

    Raises:
        UsageError: names the fields that differ, with both values.
    """
    wrong = _other_fields(stage, record)
    if wrong:
        raise UsageError(
            f"stage {stage.name!r} is finished, and the plan has changed: {'; '.join(wrong)}. Give "
            f"the old values, another name or --output, or move {folder} away to make it again"
        )


def _other_fields(stage: Stage, record: Record) -> list[str]:
    if record.task != stage.task:
        return [f"task was {record.task} and is {stage.task}"]
    origin = record.origin
    before = (None, "last") if origin is None else (origin.stage, origin.weights)
    wrong = [
        f"{name} was {was!r} and is {now!r}"
        for name, was, now in zip(
            ("from", "weights"), before, (stage.source, stage.weights), strict=True
        )
        if was != now
    ]
    kind = TASKS[stage.task]
    old, new = to_plain(from_plain(kind, record.config)), to_plain(stage.config)
    for name, setting in settings(kind).items():
        was, now = old[setting.section][setting.field], new[setting.section][setting.field]
        if name in LIST_FIELDS:
            wrong += _other_lists(stage, record, name, was, now)
        elif setting.option.resumable and setting.section not in _DECISIVE:
            continue
        elif was != now:
            wrong.append(f"{name} was {was!r} and is {now!r}")
    return wrong


def _other_lists(
    stage: Stage,
    record: Record,
    name: str,
    was: Sequence[Mapping[str, Any]],
    now: Sequence[Mapping[str, Any]],
) -> list[str]:
    """How a field of lists differs; a list that is not there any more is known by its path."""

    def how(one: Mapping[str, Any]) -> dict[str, Any]:
        return {key: value for key, value in one.items() if key not in ("path", "root")}

    if [how(one) for one in was] != [how(one) for one in now]:
        return [f"{name} was {_named(was)} and is {_named(now)}, or is read otherwise"]
    told = []
    for one, before, sha256 in zip(
        _lists(stage.config, name), was, record.lists.get(name, ()), strict=True
    ):
        there = one.path.exists() or is_store(one.path)
        if there and _sha256(one) != sha256:
            told.append(f"{name}: {one.path} is another list than {before['path']} was")
        elif not there and str(one.path) != before["path"]:
            told.append(f"{name}: {before['path']} is now {one.path}, which is not there")
    return told


def _named(lists: Sequence[Mapping[str, Any]]) -> str:
    return ", ".join(str(one["path"]) for one in lists) or "none"


def _lists(config: StageConfig, name: str) -> tuple[Source, ...]:
    section, _, field = name.partition(".")
    found: tuple[Source, ...] = getattr(getattr(config, section), field)
    return found


def _sha256(source: Source) -> str:
    if source.version is None and is_store(source.path):
        raise UsageError(
            f"{source.path}: a plan names the version of a store, so that all of it reads the same "
            "clips: give version (videomae-fast store verify says which there are)"
        )
    return digest_of(source)
