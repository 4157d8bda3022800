"""The folds of the set, and the lists that their runs read.

Clips of one recording group are in one fold, so that no background and no arm is on both sides.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

UNLABELLED = -1


@dataclass(frozen=True)
class Clip:
    """A row of ``groups.csv``: path within the set, label (-1: none), fold (-1: none)."""

    path: str
    label: int
    fold: int


@dataclass(frozen=True)
class Lists:
    """The lists of one fold. ``pretraining`` has the training clips and those without a label."""

    training: Path
    validation: Path
    pretraining: Path


def clips_of(folder: Path) -> list[Clip]:
    """All clips of the set, in the order of its table.

    Raises:
        FileNotFoundError: no ``groups.csv`` in the folder, or a clip that it names is missing.
        ValueError: a table without the columns path, label and fold.
    """
    table = folder / "groups.csv"
    with table.open(encoding="utf-8", newline="") as file:
        rows = csv.DictReader(file)
        if not {"path", "label", "fold"} <= set(rows.fieldnames or ()):
            raise ValueError(f"{table}: its first line must name path, label and fold")
        clips = [Clip(row["path"], int(row["label"]), int(row["fold"])) for row in rows]
    for clip in clips:
        if not (folder / clip.path).is_file():
            raise FileNotFoundError(f"{folder / clip.path} is missing, and {table} names it")
    return clips


def fold_numbers(clips: Sequence[Clip]) -> list[int]:
    """The folds that have labelled clips, rising."""
    return sorted({clip.fold for clip in clips if clip.label != UNLABELLED})


def write_lists(clips: Sequence[Clip], fold: int, folder: Path) -> Lists:
    """Writes the lists of a fold, whose clips are held out of both kinds of training.

    Paths in them are relative to the set's folder.
    """
    folder.mkdir(parents=True, exist_ok=True)

    def write(name: str, wanted: Callable[[Clip], bool], line: str) -> Path:
        path = folder / name
        lines = [line.format(clip=clip) for clip in clips if wanted(clip)]
        path.write_text("".join(f"{one}\n" for one in lines), encoding="utf-8")
        return path

    return Lists(
        write(
            "training.txt",
            lambda clip: clip.label != UNLABELLED and clip.fold != fold,
            "{clip.path} {clip.label}",
        ),
        write("validation.txt", lambda clip: clip.fold == fold, "{clip.path} {clip.label}"),
        write("pretraining.txt", lambda clip: clip.fold != fold, "{clip.path} 0 -1"),
    )
