"""Every bit of a checkpoint's JSON, flipped: refused by name, or the run goes on as it was.

Those of today's format, and those of the one before, which had no checksum of its state.
"""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, Final

import torch

from videomae_fast.errors import VideoMAEFastError
from videomae_fast.models.config import mae_config
from videomae_fast.recipes import Model, PretrainConfig, Schedule, to_plain
from videomae_fast.recipes.fields import settings
from videomae_fast.tasks.engine import config_of, fingerprint_of
from videomae_fast.training import checkpoint
from videomae_fast.training.resume import check_length, check_same_run, starting_point

FULL: Final = 32_000
"""More than there are bits: all of them, and then two at a time."""

CONFIG: Final = PretrainConfig(
    model=Model(size="small"), schedule=Schedule(epochs=4, warmup_epochs=1)
)
PER_EPOCH: Final = 2
DATA: Final = {"entries": [8], "steps_per_epoch": PER_EPOCH}
OLDER, NEWER = 4, 6


def run(count: int, seed: int, folder: Path) -> Iterator[str]:
    """Flips ``count`` bits, at random places where there are more."""
    draw = random.Random(seed)
    bits = [
        (parent, name, bit)
        for parent in (_written(folder / "today"), _before(folder / "before"))
        for name in (checkpoint.STATE, checkpoint.CHECKSUM)
        if (_newer(parent) / name).exists()
        for bit in range(8 * (_newer(parent) / name).stat().st_size)
    ]
    cases = [(*one, one[2]) for one in draw.sample(bits, min(count, len(bits)))]
    cases += [(*one, draw.choice(bits)[2]) for one in draw.choices(bits, k=count - len(cases))]
    for parent, name, first, second in cases:
        path = _newer(parent) / name
        whole = path.read_bytes()
        flipped = bytearray(whole)
        for bit in {first, second % (8 * len(whole))}:
            flipped[bit // 8] ^= 1 << bit % 8
        path.write_bytes(flipped)
        told = _finding(parent)
        path.write_bytes(whole)
        if told is not None:
            yield f"{parent.name}: {name}, bits {first} and {second}: {told}"


def _finding(output: Path) -> str | None:
    newer, said = _newer(output), list[str]()
    try:
        saved = starting_point(output, "auto", said.append, partial(config_of, PretrainConfig))
        assert saved is not None
        before = fingerprint_of(config_of(PretrainConfig, saved), PER_EPOCH)
        now = fingerprint_of(CONFIG, PER_EPOCH)
        check_same_run(saved, before, now, DATA)
        check_length(saved, before, now, said.append)
    except VideoMAEFastError as error:
        # Only without a checksum: nobody can know what stood there
        known = str(newer) in str(error) and not (newer / checkpoint.CHECKSUM).exists()
        return None if known else f"{type(error).__name__}: {error}"
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    if saved.step == OLDER:
        named = len(said) == 1 and said[0].startswith(f"ignored: checkpoint {newer}")
        return None if named else f"fell back with {said}"
    if saved.step != NEWER:
        return f"goes on at step {saved.step}"
    if (newer / checkpoint.CHECKSUM).exists():
        return "went unnoticed"
    length = [line for line in said if line.startswith("the run's length changes")]
    return None if said == length else f"goes on with {said}"


def _newer(output: Path) -> Path:
    return output / "checkpoints" / checkpoint.folder_name(NEWER)


def _written(output: Path) -> Path:
    """A run with two checkpoints."""
    output.mkdir()
    for step in (OLDER, NEWER):
        state: dict[str, Any] = {
            "step": step,
            "config": to_plain(CONFIG),
            "model": mae_config(CONFIG.model).to_dict(),
            "model_options": {"normalize_target": True, "ignore_flat_cubes": False},
            "data": DATA,
            "init": None,
        }
        weights = {"weight": torch.full((4,), float(step))}
        moments = {"exp_avg.weight": weights["weight"]}
        folder = output / "checkpoints" / checkpoint.folder_name(step)
        checkpoint.save(folder, weights, moments, state)
    return output


def _before(output: Path) -> Path:
    """The same in the format before."""
    shutil.copytree(_written(output.with_name("new")), output)
    for folder in checkpoint.checkpoints(output / "checkpoints"):
        as_before(folder)
    return output


def as_before(folder: Path) -> None:
    """Makes a checkpoint one of the format before."""
    (folder / checkpoint.CHECKSUM).unlink()
    state = json.loads((folder / checkpoint.STATE).read_text())
    del state["init"]
    nested = state["config"]
    state["config"] = {
        one.flat: nested[one.section][one.field]
        for one in settings(PretrainConfig).values()
        if one.name not in ("model.init", "schedule.steps")
    }
    state["format"] = checkpoint.WITHOUT_CHECKSUM
    (folder / checkpoint.STATE).write_text(json.dumps(state))
