"""Doing a cell, once: its runs, its record, and which records there are."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.common.record import environment, read, write
from benchmarks.gestures.arms import Fold, Log, StudySettings, run_arm
from benchmarks.study.compute import Budget, budget, with_lengths
from benchmarks.study.rows import Cell
from benchmarks.study.sets import LabelledSet, with_few_labels
from videomae_fast.data.lock import FolderLock
from videomae_fast.errors import UsageError

KIND = "study, a cell"


@dataclass(frozen=True)
class Plan:
    """What a cell takes.

    Attributes:
        cell: which one.
        of: its set.
        settings: of its runs, lengths included.
        budget: steps and multiply-adds.
        path: of its record.
    """

    cell: Cell
    of: LabelledSet
    settings: StudySettings
    budget: Budget
    path: Path

    @staticmethod
    def of_cell(cell: Cell, of: LabelledSet, settings: StudySettings, folder: Path) -> Plan:
        """With the study's settings, and the folder of the records."""
        own = replace(
            settings,
            pretraining={**settings.pretraining, **of.fields},
            finetuning={**settings.finetuning, **of.fields},
        )
        found = budget(own, cell.row, of.classes)
        name = f"fold-{cell.fold}-seed-{cell.seed}.json"
        return Plan(
            cell, of, with_lengths(own, cell.row, found), found,
            folder / cell.row.set / cell.row.slug / name,
        )  # fmt: skip

    def record(self) -> dict[str, Any] | None:
        """The cell's record, or None where there is none.

        Raises:
            ValueError: there is one of other settings, or it can't be read.
        """
        if not self.path.exists():
            return None
        found = read(self.path)
        if found.get("kind") != KIND or found.get("settings") != plain(self.settings):
            raise ValueError(
                f"{self.path} is of other settings: give another --cells and --work, or move it"
            )
        if found.get("set_digest") != self.of.digest:
            raise ValueError(
                f"{self.path} is of other clips than those of {self.of.data}: give another --cells "
                "and --work, or move it"
            )
        return found


def plain(settings: StudySettings) -> Any:
    """As they are when they were written to JSON and read."""
    return json.loads(json.dumps(settings.to_dict()))


def folds(plan: Plan, work: Path) -> tuple[Fold, Fold]:
    """The cell's own clips and folder, and those of its pre-training, which other rows may share:
    its folder is named after its fields.

    Args:
        plan: of the cell.
        work: folder of runs.
    """
    cell, of, settings = plan.cell, plan.of, plan.settings
    place = work / of.name
    clips = with_few_labels(of.clips, cell.fold, cell.row.labels, cell.seed)
    fields = json.dumps([settings.model, settings.pretraining], sort_keys=True)
    digest = hashlib.sha256(fields.encode()).hexdigest()[:12]
    begun = Fold(of.clips, of.data, cell.fold, cell.seed, place / digest, place / "decoded")
    return replace(begun, clips=clips, work=place / cell.row.slug), begun


def do(plan: Plan, work: Path, command: list[str], log: Log) -> dict[str, Any] | None:
    """Does a cell, or goes on with it, and writes its record.

    Args:
        plan: of the cell.
        work: folder of runs.
        command: that makes it again.
        log: takes the runs' lines.

    Returns:
        The record; None where another process does it, or one with the same pre-training.
    """
    own, begun = folds(plan, work)
    with ExitStack() as held:
        try:
            for fold in (own,) if plan.cell.row.arm == "from scratch" else (own, begun):
                held.enter_context(FolderLock(fold.folder, "does a cell of the study"))
        except UsageError:
            return None
        if (found := plan.record()) is not None:  # made since somebody looked
            return found
        return _done(plan, own, begun, command, log)


def _done(plan: Plan, own: Fold, begun: Fold, command: list[str], log: Log) -> dict[str, Any]:
    """Of folds with the cell's clips, and with those of its pre-training."""
    cell, of, clips = plan.cell, plan.of, own.clips
    found = run_arm(cell.row.arm, own, plan.settings, log, pretraining=begun)
    record = {
        "kind": KIND,
        **environment("cpu", command),
        **about(cell),
        "set_digest": of.digest,
        "classes": of.classes,
        "clips": {
            "labelled": sum(c.label >= 0 and c.fold != cell.fold for c in clips),
            "pretraining": sum(c.fold != cell.fold for c in clips),
        },
        "budget": plan.budget.to_dict(),
        **found,
        "settings": plain(plan.settings),
    }
    write(record, plan.path)
    shutil.rmtree(own.folder)  # the record is whole
    return record


def about(cell: Cell) -> Mapping[str, Any]:
    """What names a cell in its record."""
    row = cell.row
    return {
        "set": row.set, "table": row.table, "row": row.name, "arm": row.arm, "labels": row.labels,
        "fold": cell.fold, "seed": cell.seed,
    }  # fmt: skip
