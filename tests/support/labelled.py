"""A small labelled set: a bright square on a grey field, whose direction of motion is the class."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.support.videos import write_video
from videomae_fast.recipes import FinetuneConfig, Source, changed

DIRECTIONS = {"left": (0, -1), "right": (0, 1), "up": (-1, 0), "down": (1, 0)}
SIDE, SQUARE, FRAMES = 48, 14, 16

TINY: dict[str, Any] = {
    "model.size": "small",
    "model.image_size": 32,
    "model.frames": 4,
    "model.width": 48,
    "model.depth": 2,
    "model.heads": 2,
    "model.drop_path": 0.0,
    "model.init_scale": 1.0,
    "data.stride": 4,
    "data.workers": 0,
    "data.samples": 2,
    "data.max_failed_share": 0.5,
    "augment.operations": 0,
    "augment.area": (0.9, 1.0),
    "augment.flip": 0.0,
    "augment.erase": 0.0,
    "optim.videos_per_step": 8,
    "optim.base_lr": 0.05,
    "optim.layer_decay": 0.9,
    "schedule.epochs": 2,
    "schedule.warmup_epochs": 1,
    "run.device": "cpu",
    "run.log_every": 2,
    "run.checkpoint_every": 1000,
}


def moving_square(path: Path, direction: str, number: int) -> Path:
    """Writes a video of a square that crosses the frame from one side to the other."""
    rng = np.random.default_rng((sorted(DIRECTIONS).index(direction), number))
    dy, dx = DIRECTIONS[direction]
    across = int(rng.integers(0, SIDE - SQUARE))
    colour = rng.integers(140, 256, 3)

    def make(frame: int, width: int, height: int) -> NDArray[np.uint8]:
        picture = np.full((height, width, 3), 60, dtype=np.uint8)
        way = round((SIDE - SQUARE) * frame / (FRAMES - 1))
        along = way if dy + dx > 0 else SIDE - SQUARE - way
        top, left = (along, across) if dy else (across, along)
        picture[top : top + SQUARE, left : left + SQUARE] = colour
        return picture

    path.parent.mkdir(parents=True, exist_ok=True)
    options = {"g": "8", "preset": "ultrafast", "crf": "12"}
    return write_video(path, FRAMES, size=(SIDE, SIDE), make=make, options=options)


def write_set(folder: Path, train: int, validation: int) -> tuple[Path, Path]:
    """Lists of this many videos of each direction, and the videos in folders of their classes."""
    lists = []
    for split, count, first in (("train", train, 0), ("val", validation, 1000)):
        lines = []
        for number in range(count):
            for label, direction in enumerate(sorted(DIRECTIONS)):
                name = folder / split / direction / f"{number}.mp4"
                lines.append(f"{moving_square(name, direction, first + number)} {label}\n")
        lists.append(folder / f"{split}.csv")
        lists[-1].write_text("".join(lines))
    return lists[0], lists[1]


def tiny_config(train: Path, validation: Path | None = None, **others: Any) -> FinetuneConfig:
    """A tiny run over such lists; others: fields by dotted name, with __ for the dot."""
    validated = () if validation is None else (Source(validation, format="labels"),)
    lists = {"data.lists": (Source(train, format="labels"),), "data.validation": validated}
    given = {name.replace("__", "."): value for name, value in others.items()}
    return changed(FinetuneConfig(), {**TINY, **lists, **given})


def in_folds(folder: Path) -> Path:
    """Four classes in three folds, and a clip without a label, with their ``groups.csv``."""
    rows = ["path,label,group,fold"]
    for label, direction in enumerate(sorted(DIRECTIONS)):
        for fold in range(3):
            path = moving_square(folder / direction / f"{fold}.mp4", direction, fold)
            rows.append(f"{path.relative_to(folder)},{label},g{fold},{fold}")
    moving_square(folder / "other.mp4", "left", 9)
    rows.append("other.mp4,-1,h,-1")
    (folder / "groups.csv").write_text("\n".join(rows) + "\n")
    return folder
