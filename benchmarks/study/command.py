"""The papers' tables in miniature: what pre-training, its masks and its decoder are worth.

    python -m benchmarks study --data ../shared/datasets/egogestar --minutes 30
    python -m benchmarks study --data LIST --seeds 0 --tables "decoder mask" --minutes 600
    python -m benchmarks study --data FOLDER --pilot
    python -m benchmarks study --data FOLDER --minutes 0

A cell is a row of the tables on one fold with one seed: pre-training on all clips but the fold's,
fine-tuning, and the share of the fold's clips in the right class by the last weights. All rows have
the same multiply-adds of pre-training; from scratch gets them for its fine-tuning, and one row does
both. Each call does the next cells that have no record, those that say most first, as long as
--minutes last; one that was stopped goes on, and calls at the same time share the cells, as on
several cores with --threads 1. Then it writes table and plot of the cells that there are, and says
what is missing. --data is a folder with groups.csv (path, label, fold), or a list with lines "path
label", in which left and right may be classes: nothing is flipped. The second set, rendered
motions, is made in --work. --pilot compares sizes and lengths on the first fold.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.common.command import command_of, parser_of, results_folder
from benchmarks.common.record import environment, stamp
from benchmarks.gestures.arms import StudySettings
from benchmarks.report.records import finish
from benchmarks.study.cells import Plan, about, do, plain
from benchmarks.study.rows import BASE, BASE_IN, CLIPS, MOTIONS, ROWS, SCRATCH, Cell, cells
from benchmarks.study.sets import LabelledSet, Rendered, own_set, rendered_set
from benchmarks.study.sizes import CANDIDATES, CHOSEN, tiny
from videomae_fast.errors import VideoMAEFastError
from videomae_fast.progress import duration
from videomae_fast.training.errors import InterruptedRunError

CELLS, PILOT = "study-cells", "study-pilot-cells"
TINY_RENDERED = Rendered(unlabelled=8, labelled=25, scored=1, side=32, seconds=2.0)


def arguments() -> argparse.ArgumentParser:
    """The parser of ``study``."""
    parser = parser_of("study", __doc__, tiny=True, threads=2)
    add = parser.add_argument
    add("--data", type=Path, help="labelled clips; without them the rendered motions alone")
    add("--minutes", type=float, default=30.0, help="that this call may take; default: 30")
    add(
        "--seeds",
        type=int,
        nargs="+",
        default=[0, 1, 2],
        help="of the main rows; the others have the first; default: 0 1 2",
    )
    add("--folds", type=int, nargs="+", help="of --data that are scored; default: all")
    add("--tables", nargs="+", help="that cells are done of; default: all")
    add("--pilot", action="store_true", help="compare sizes and lengths on one fold instead")
    add(
        "--work", type=Path, default=Path("runs/study"),
        help="folder of rendered and decoded clips and of runs; default: %(default)s",
    )  # fmt: skip
    add("--cells", type=Path, help=f"folder of the cells' records; default: {CELLS} in --out")
    return parser


class Slice:
    """The cells of one call, as many as its time allows, and what is left after them."""

    def __init__(self, plans: Sequence[Plan], minutes: float) -> None:
        self.plans, self.until = plans, time.perf_counter() + 60 * minutes
        self.records: dict[Path, dict[str, Any]] = {}
        self.left()

    def left(self) -> list[Plan]:
        """Those without a record, in their order; other processes may have written some."""
        for plan in self.plans:
            if plan.path not in self.records and (record := plan.record()) is not None:
                self.records[plan.path] = record
        return [plan for plan in self.plans if plan.path not in self.records]

    def seconds(self, plan: Plan) -> float | None:
        """What a cell should take, by those that were done; None before the first."""
        rates = [
            (one["seconds"] + one["pretraining_seconds"]) / work
            for one in self.records.values()
            if (work := one["budget"]["pretraining"] + one["budget"]["finetuning"])
            and (one["pretraining_seconds"] > 1 or not one["budget"]["pretraining"])
        ]
        if not rates:
            return None
        work = plan.budget.pretraining + plan.budget.finetuning
        return float(statistics.median(rates)) * work

    def run(self, work: Path, command: list[str]) -> None:
        """Does cells until none is left that no other process does, or the next one would take too
        long."""
        others: set[Path] = set()
        while todo := [plan for plan in self.left() if plan.path not in others]:
            plan, now = todo[0], time.perf_counter()
            expected = self.seconds(plan)
            if now + (expected or 0.0) > self.until:
                return
            told = "" if expected is None else f", about {duration(expected)}"
            print(f"{len(self.records) + 1} of {len(self.plans)}: {plan.cell}{told}", flush=True)
            record = do(plan, work, command, _quiet)
            if record is None:
                others.add(plan.path)
                print("    another process does it, or one with the same pre-training", flush=True)
                continue
            others.clear()  # they may have ended
            self.records[plan.path] = record
            print(f"    {record['accuracy']:.1%}; {self.told()}", flush=True)

    def told(self) -> str:
        """How many are left, and how long they should take."""
        todo = self.left()
        if not todo:
            return "all cells are done"
        expected = [self.seconds(plan) for plan in todo]
        if expected[0] is None:
            return f"{len(todo)} cells are left"
        total = sum(one for one in expected if one is not None)
        return f"{len(todo)} cells are left, about {duration(total)}"


def plans_of(
    sets: Sequence[LabelledSet], args: argparse.Namespace, settings: StudySettings, folder: Path
) -> list[Plan]:
    """Of all cells that the options ask for, in the order of importance."""
    by_name = {one.name: one for one in sets}
    folds: dict[str, Sequence[int]] = {one.name: one.folds for one in sets}
    if args.folds is not None and CLIPS in folds:
        folds[CLIPS] = tuple(args.folds)
    return [
        Plan.of_cell(cell, by_name[cell.row.set], settings, folder)
        for cell in cells(folds, args.seeds)
        if args.tables is None or cell.row.table in args.tables
    ]


def pilot_plans(own: LabelledSet, folder: Path, *, small: bool) -> dict[str, list[Plan]]:
    """Pre-trained and from scratch on the first fold, with the settings of each candidate."""
    candidates = {"tiny": tiny()} if small else CANDIDATES
    return {
        name: [
            Plan.of_cell(Cell(row, own.folds[0], 0), own, settings, folder / str(number))
            for row in (BASE, SCRATCH)
        ]
        for number, (name, settings) in enumerate(candidates.items())
    }


def main(argv: Sequence[str]) -> int:
    """Does a slice of the study, or of its pilot, and writes record, table and plot.

    Returns:
        0, or 128 + the number of the signal that stopped a run; it goes on with the same command.
    """
    parser = arguments()
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    tables = {row.table for row in ROWS}
    if unknown := sorted(set(args.tables or ()) - tables):
        parser.error(f"--tables {unknown[0]!r}: there are {', '.join(sorted(tables))}")
    if args.pilot and args.data is None:
        parser.error("--pilot needs --data")
    out, command = results_folder(args), command_of("study", argv)
    try:
        own = [] if args.data is None else [own_set(args.data)]
        for one in own:
            if wrong := sorted(set(args.folds or ()) - set(one.folds)):
                parser.error(f"--folds {wrong[0]}: the set has {list(one.folds)}")
        if args.pilot:
            return _pilot(own[0], args, out, command)
        size = TINY_RENDERED if args.tiny else Rendered()
        sets = [*own, rendered_set(args.work / "rendered", size)]
        settings = tiny() if args.tiny else CANDIDATES[CHOSEN]
        folder = args.cells or out / CELLS
        some = Slice(plans_of(sets, args, settings, folder), args.minutes)
        some.run(args.work, command)
    except InterruptedRunError as stopped:
        print(stopped, file=sys.stderr)
        return stopped.exit_code
    except (FileNotFoundError, ValueError, VideoMAEFastError) as error:
        parser.error(str(error))
    print(some.told(), flush=True)
    record = {
        "kind": "study",
        **environment("cpu", command),
        "settings": {"tiny": args.tiny, "seeds": args.seeds, "base": plain(settings)},
        "sets": {one.name: _described(one) for one in sets},
        "base_in": BASE_IN,
        "planned": [dict(about(plan.cell)) for plan in some.plans],
        "cells": [_short(record) for record in some.records.values()],
    }
    return finish(record, out / f"study-cpu-{stamp()}.json")


def _pilot(own: LabelledSet, args: argparse.Namespace, out: Path, command: list[str]) -> int:
    candidates = pilot_plans(own, args.cells or out / PILOT, small=args.tiny)
    some = Slice([plan for plans in candidates.values() for plan in plans], args.minutes)
    some.run(args.work / "pilot", command)
    print(some.told(), flush=True)
    record = {
        "kind": "study pilot",
        **environment("cpu", command),
        "settings": {"tiny": args.tiny, "chosen": CHOSEN},
        "set": _described(own),
        "candidates": [
            {
                "name": name,
                "cells": [_short(some.records[p.path]) for p in plans if p.path in some.records],
            }
            for name, plans in candidates.items()
        ],
    }
    return finish(record, out / f"study-pilot-cpu-{stamp()}.json")


def _described(of: LabelledSet) -> dict[str, Any]:
    labelled = [clip for clip in of.clips if clip.label >= 0]
    return {
        "name": of.data.stem if of.name == CLIPS else MOTIONS,
        "clips": len(of.clips), "labelled": len(labelled), "classes": of.classes,
        "folds": {str(fold): sum(c.fold == fold for c in labelled) for fold in of.folds},
    }  # fmt: skip


KEPT = (
    "set", "table", "row", "arm", "labels", "fold", "seed", "accuracy", "videos", "seconds",
    "pretraining_seconds", "budget", "clips", "classes", "date", "commit", "learning_rate",
    "weight_decay",
)  # fmt: skip


def _short(record: dict[str, Any]) -> dict[str, Any]:
    return {name: record[name] for name in KEPT if name in record}


def _quiet(_: str) -> None:
    """Runs' own lines are in their folders."""
