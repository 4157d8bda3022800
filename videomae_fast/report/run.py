"""Reads what a run left in its folder; nothing is computed and nothing is changed."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar

from videomae_fast.data.failures import Failure, read_report
from videomae_fast.errors import UsageError, VideoMAEFastError
from videomae_fast.tasks.detection.history import DetectionHistory, Validated
from videomae_fast.tasks.validation import Epoch, History
from videomae_fast.training.metrics import read_metrics

T = TypeVar("T")

_PICTURES: Final = (".png", ".gif", ".jpg", ".svg")
_TOLD: Final = frozenset(
    {
        "step",
        "epoch",
        "loss",
        "lr",
        "grad_norm",
        "clips",
        "failed_clips",
        "clips_per_s",
        "data_wait",
    }
)


@dataclass(frozen=True)
class TestRecord:
    """What a test in some views left.

    Attributes:
        folder: of its files, within the run's.
        numbers: ``result.json``: videos, failed, top1, top5, ...
        classes: ``classes.csv``, its header first; empty where there is none.
    """

    folder: str
    numbers: Mapping[str, Any]
    classes: Sequence[Sequence[str]]


@dataclass(frozen=True)
class RunRecord:
    """A run's folder, read.

    Attributes:
        path: the folder.
        config: ``config.json``, by section.
        steps: ``metrics.jsonl``, in order of steps.
        validation: ``validation.jsonl`` of a classifier, in order.
        failures: of all processes, in order of steps.
        tests: in the folders below.
        pictures: files in the folder and those below, without checkpoints.
        versions: of what computed the newest checkpoint; empty without one.
        unreadable: what could not be read of all this, in words.
        detection: ``validation.jsonl`` of a detector, in order.
    """

    path: Path
    config: Mapping[str, Any]
    steps: Sequence[Mapping[str, Any]]
    validation: Sequence[Epoch]
    failures: Sequence[Failure]
    tests: Sequence[TestRecord]
    pictures: Sequence[Path]
    versions: Mapping[str, str]
    unreadable: Sequence[str] = field(default_factory=tuple)
    detection: Sequence[Validated] = ()

    @property
    def own_metrics(self) -> list[str]:
        """Names of the task's own numbers of a step, as they first come."""
        return list(dict.fromkeys(name for step in self.steps for name in step.keys() - _TOLD))


def read_run(path: Path) -> RunRecord:
    """Reads a run's folder. A file that is damaged is named in the record, and the rest is read.

    Args:
        path: the ``--output`` of a run.

    Returns:
        What could be read.

    Raises:
        UsageError: there is no run in it.
    """
    if not (path / "metrics.jsonl").is_file():
        raise UsageError(
            f"{path} holds no metrics.jsonl: give the --output folder of a run that made a step"
        )
    unreadable: list[str] = []

    def tried(read: Callable[[Path], T], of: Path, otherwise: T) -> T:
        try:
            return read(of)
        except (VideoMAEFastError, OSError, ValueError) as error:
            unreadable.append(str(error))
            return otherwise

    none: list[Failure] = []
    reports = sorted(path.glob("bad_files.rank*.jsonl"))
    failures = [one for report in reports for one in tried(read_report, report, none)]
    results = [tried(_test_in(path), one, None) for one in sorted(path.rglob("result.json"))]
    states = sorted((path / "checkpoints").glob("step-*/state.json"))
    empty: dict[str, Any] = {}
    newest = tried(_object, states[-1], empty) if states else empty
    config = tried(_object, path / "config.json", empty)
    detects = "bins" in config.get("model", empty)
    return RunRecord(
        path,
        config,
        tried(read_metrics, path / "metrics.jsonl", []),
        [] if detects else tried(lambda run: History(run).epochs, path, []),
        sorted(failures, key=lambda one: (one.step, one.position)),
        [one for one in results if one is not None],
        sorted(one for one in path.rglob("*") if _is_shown(one.relative_to(path))),
        newest.get("versions", empty),
        unreadable,
        tried(lambda run: DetectionHistory(run).epochs, path, []) if detects else (),
    )


def _object(path: Path) -> dict[str, Any]:
    """A JSON file that holds an object.

    Raises:
        ValueError: it holds something else.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is no JSON: {error}") from error
    if not isinstance(found, dict):
        raise ValueError(f"{path} holds no JSON object")
    return found


def _test_in(run: Path) -> Callable[[Path], TestRecord]:
    """Reads a test of a run by the path of its ``result.json``."""

    def read(result: Path) -> TestRecord:
        table = result.with_name("classes.csv")
        rows: list[list[str]] = []
        if table.is_file():
            with table.open(newline="", encoding="utf-8") as file:
                rows = list(csv.reader(file))
        return TestRecord(str(result.parent.relative_to(run)), _object(result), rows)

    return read


def _is_shown(path: Path) -> bool:
    hidden = any(part.startswith(".") for part in path.parts)
    return path.suffix in _PICTURES and not hidden and path.parts[0] != "checkpoints"
