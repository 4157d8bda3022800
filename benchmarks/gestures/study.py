"""A small labelled set by folds: what pre-training on its own clips is worth.

    python -m benchmarks gestures --data ../shared/datasets/egogestar
    python -m benchmarks gestures --data FOLDER --folds 0 --seeds 0 1 --threads 1

Each fold is held out of everything, pre-training included, and scored once at the end: a classifier
from scratch, the same one from weights pre-trained on the other folds' clips (and those without a
label), and a linear probe of these weights. Each cell (fold, seed, arm) leaves a record in --cells;
one that is there, with the same settings, is not done again, and runs go on where they were
stopped. Writes JSON, a table and a plot of the cells that there are.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

import torch

from benchmarks.common.command import command_of, parser_of, results_folder
from benchmarks.common.record import environment, read, stamp, write
from benchmarks.gestures.arms import ARMS, FULL, TINY, Arm, Fold, StudySettings, run_arm, shorter
from benchmarks.gestures.folds import clips_of, fold_numbers
from benchmarks.report.records import finish

CELLS = "gestures-cells"


def arguments() -> argparse.ArgumentParser:
    """The parser of ``gestures``."""
    parser = parser_of("gestures", __doc__, tiny=True, threads=2)
    add = parser.add_argument
    add("--data", type=Path, required=True, help="the set's folder, with groups.csv")
    add("--folds", type=int, nargs="+", help="that are scored; default: all")
    add("--seeds", type=int, nargs="+", default=[0], help="of the runs; default: 0")
    add("--arms", nargs="+", choices=ARMS, default=list(ARMS), help="default: all")
    add("--pretraining-epochs", type=int, help="other than those of the settings")
    add("--finetuning-epochs", type=int, help="other than those of the settings")
    add(
        "--work", type=Path, default=Path("runs/gestures"),
        help="folder of lists, decoded clips and runs; default: %(default)s",
    )  # fmt: skip
    add("--cells", type=Path, help=f"folder of the cells' records; default: {CELLS} in --out")
    return parser


def cell_path(folder: Path, fold: int, seed: int, arm: Arm) -> Path:
    """Where a cell's record lies."""
    return folder / f"fold-{fold}-seed-{seed}-{arm.replace(' ', '-')}.json"


def done(path: Path, settings: StudySettings) -> dict[str, Any] | None:
    """The record of a cell with these settings, or None.

    Raises:
        ValueError: there is one of other settings.
    """
    if not path.exists():
        return None
    found = read(path)
    if found["settings"] != _plain(settings):
        raise ValueError(
            f"{path} is of other settings: give another --cells and --work, or move it"
        )
    return found


def _plain(settings: StudySettings) -> Any:
    import json

    return json.loads(json.dumps(settings.to_dict()))


def main(argv: Sequence[str]) -> int:
    """Does the cells that are missing, and writes record, table and plot of all of them.

    Returns:
        0.
    """
    parser = arguments()
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    settings: StudySettings = shorter(
        TINY if args.tiny else FULL, args.pretraining_epochs, args.finetuning_epochs
    )
    out = results_folder(args)
    cells = args.cells or out / CELLS
    try:
        clips = tuple(clips_of(args.data))
    except (FileNotFoundError, ValueError) as error:
        parser.error(str(error))
    folds = fold_numbers(clips) if args.folds is None else args.folds
    unknown = sorted(set(folds) - set(fold_numbers(clips)))
    if unknown:
        parser.error(f"--folds {unknown[0]}: the set has {fold_numbers(clips)}")
    command, rows = command_of("gestures", argv), []
    for fold_number, seed, arm in product(folds, args.seeds, args.arms):
        path = cell_path(cells, fold_number, seed, arm)
        try:
            cell = done(path, settings)
        except ValueError as error:
            parser.error(str(error))
        if cell is None:
            fold = Fold(clips, args.data, fold_number, seed, args.work)
            print(f"fold {fold_number}, seed {seed}, {arm}", flush=True)
            found = run_arm(arm, fold, settings, _quiet)
            about = {"fold": fold_number, "seed": seed, "arm": arm}
            cell = {
                "kind": "gestures, a cell", **environment("cpu", command), **about, **found,
                "settings": _plain(settings),
            }  # fmt: skip
            write(cell, path)
        rows.append(cell)
        print(f"fold {fold_number}, seed {seed}, {arm}: {cell['accuracy']:.1%}", flush=True)
    record = {
        "kind": "gestures",
        **environment("cpu", command),
        "settings": {"tiny": args.tiny, **_plain(settings)},
        "classes": 1 + max(clip.label for clip in clips),
        "cells": [{k: v for k, v in row.items() if k in KEPT} for row in rows],
    }
    return finish(record, out / f"gestures-cpu-{stamp()}.json")


KEPT = (
    "fold", "seed", "arm", "accuracy", "videos", "right", "seconds", "pretraining_seconds", "date",
    "commit", "learning_rate", "weight_decay",
)  # fmt: skip


def _quiet(_: str) -> None:
    """Runs' own lines are in their folders."""
