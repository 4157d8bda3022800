"""A checkpoint's optimizer state, put where it belongs, and refused where it is not finite."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from videomae_fast.training.checkpoint import Saved
from videomae_fast.training.errors import CheckpointError
from videomae_fast.training.finite import not_a_number
from videomae_fast.training.optimizer import (
    load_optimizer_state,
    optimizer_state,
    read_optimizer_state,
)
from videomae_fast.training.parallel.ddp import spread
from videomae_fast.training.parallel.world import World
from videomae_fast.training.step import TrainStep


def load_moments(saved: Saved, step: TrainStep[Any], world: World) -> None:
    """The optimizer's state of a checkpoint, of which each byte is read once: where it is sharded
    each process reads its part, else the main process all, and hands it to the others."""
    if step.layout.sharded:
        found = world.gather(not_a_number(read_optimizer_state(step.model, step.optimizer, saved)))
        check_finite(saved.folder, next((one for one in found if one is not None), None))
        return
    if world.is_main:
        moments = saved.optimizer()
        check_finite(saved.folder, not_a_number(moments))
        load_optimizer_state(step.model, step.optimizer, moments)
    spread(optimizer_state(step.model, step.optimizer).values(), world)


def check_finite(folder: Path, wrong: str | None) -> None:
    """Raises CheckpointError where something is not. wrong: what, in words."""
    if wrong is not None:
        raise CheckpointError(
            f"checkpoint {folder} is whole, but was written with values that are not finite: "
            f"{wrong}: go on from an earlier one with --resume"
        )
