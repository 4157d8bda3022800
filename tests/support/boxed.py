"""Key frames with boxes: squares of two sizes that cross a frame, each in a direction, its action.

A big square's number is its direction's; every big one also has action 5.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.support.videos import write_video
from videomae_fast.recipes import BoxSource, DetectConfig, changed

NAMES = ("left", "right", "up", "down", "big")
STEPS = ((0, -1), (0, 1), (-1, 0), (1, 0))
SIDE, FRAMES, KEY, FPS = 64, 20, 10, 10
SMALL, BIG = 14, 22

TINY: dict[str, Any] = {
    "model.size": "small",
    "model.image_size": 64,
    "model.frames": 4,
    "model.patch_size": 8,
    "model.width": 48,
    "model.depth": 2,
    "model.heads": 2,
    "model.drop_path": 0.0,
    "model.init_scale": 1.0,
    "model.bins": 3,
    "data.stride": 4,
    "data.short_side": 64,
    "data.workers": 0,
    "data.max_failed_share": 0.5,
    "augment.flip": 0.0,
    "optim.videos_per_step": 8,
    "optim.base_lr": 0.06,
    "optim.layer_decay": 0.9,
    "schedule.epochs": 2,
    "schedule.warmup_epochs": 1,
    "run.device": "cpu",
    "run.log_every": 5,
    "run.checkpoint_every": 1000,
}

Square = tuple[int, int, int, int]
"""Top and left in the key frame, side, action 1 to 4."""


def squares_of(seed: int) -> list[Square]:
    """Two squares of one video, in its two halves, so that they never meet."""
    rng = np.random.default_rng(seed)
    found = []
    for half in range(2):
        side = int(rng.choice((SMALL, BIG)))
        action = int(rng.integers(0, 4))
        room = SIDE // 2 - side
        top = int(rng.integers(12, SIDE - side - 12))
        left = half * SIDE // 2 + int(rng.integers(0, room + 1))
        if STEPS[action][1]:  # moves along: it stays in its half
            left = half * SIDE // 2 + room // 2
        found.append((top, left, side, action + 1))
    return found


def picture_of(squares: list[Square], frame: int, seed: int) -> NDArray[np.uint8]:
    """A frame of the video: each square a pixel further per frame, those that cross by a half."""
    picture = np.full((SIDE, SIDE, 3), 60, dtype=np.uint8)
    rng = np.random.default_rng((7, seed))
    for top, left, side, action in squares:
        colour = rng.integers(140, 256, 3)
        down, across = STEPS[action - 1]
        away = frame - KEY
        y, x = top + down * away, left + round(across * away / 2)
        picture[max(0, y) : max(0, y + side), max(0, x) : max(0, x + side)] = colour
    return picture


def write_boxed(folder: Path, train: int, validation: int, *, videos: bool = False) -> None:
    """Lists ``train.csv`` and ``val.csv``, the same as JSON, and their videos or image folders.

    Args:
        folder: where ``frames`` with the videos goes too.
        train, validation: videos of each, with a key frame at second 1.
        videos: MP4 files; else folders of PNG.
    """
    for split, count, first in (("train", train, 0), ("val", validation, 10_000)):
        lines, images, annotations = [], list[Any](), list[Any]()
        for number in range(count):
            seed, name = first + number, f"{split}{number}"
            squares = squares_of(seed)
            write_frames(folder / "frames" / name, squares, seed, videos)
            images.append(
                {"id": seed, "video": name, "timestamp": 1, "width": SIDE, "height": SIDE}
            )
            for top, left, side, action in squares:
                box = (left, top, left + side, top + side)
                place = ",".join(f"{value / SIDE:.6f}" for value in box)
                actions = [action, *([5] if side == BIG else [])]
                lines += [f"{name},1,{place},{one}\n" for one in actions]
                bbox = [left, top, side, side]
                annotations.append({"image_id": seed, "bbox": bbox, "action_ids": actions})
        categories = [{"id": i, "name": name} for i, name in enumerate(NAMES, 1)]
        (folder / f"{split}.csv").write_text("".join(lines))
        said = {"images": images, "annotations": annotations, "categories": categories}
        (folder / f"{split}.json").write_text(json.dumps(said))
    items = (f'item {{ name: "{name}" id: {i} }}\n' for i, name in enumerate(NAMES, 1))
    (folder / "actions.pbtxt").write_text("".join(items))


def write_frames(path: Path, squares: list[Square], seed: int, videos: bool) -> None:
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    if videos:
        write_video(
            path.with_suffix(".mp4"), FRAMES, size=(SIDE, SIDE),
            make=lambda frame, width, height: picture_of(squares, frame, seed),
            options={"g": "8", "preset": "ultrafast", "crf": "12"},
            times=[frame * 1000 // FPS for frame in range(FRAMES)],
        )  # fmt: skip
        return
    path.mkdir(exist_ok=True)
    for frame in range(FRAMES):
        picture = Image.fromarray(picture_of(squares, frame, seed))
        picture.save(path / f"img_{frame + 1:05}.png", compress_level=1)


def boxed_source(folder: Path, name: str, **others: Any) -> BoxSource:
    """A list that :func:`write_boxed` made."""
    given: dict[str, Any] = {"fps": float(FPS), "name_pattern": "img_{:05}.png", **others}
    return BoxSource(folder / name, folder / "frames", **given)


def tiny_detection(folder: Path, *, validated: bool = True, **others: Any) -> DetectConfig:
    """A tiny run over such lists; others: fields by dotted name, with __ for the dot."""
    lists: dict[str, Any] = {"data.lists": (boxed_source(folder, "train.csv"),)}
    if validated:
        lists["data.validation"] = (boxed_source(folder, "val.csv"),)
    given = {name.replace("__", "."): value for name, value in others.items()}
    return changed(DetectConfig(), {**TINY, **lists, **given})
