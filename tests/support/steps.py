"""Single steps of tiny models: batches, a new step, and what a step may not do."""

from __future__ import annotations

from typing import Any, Final

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.scale.layouts import batch, split
from videomae_fast.data import ClipBatch
from videomae_fast.recipes import PretrainConfig
from videomae_fast.tasks.pretraining import Reconstruction, build_model, settings_of
from videomae_fast.training.parallel.world import World
from videomae_fast.training.step import TrainStep

__all__ = ["CPU", "NoRead", "batch", "curve", "new_step", "split"]

CPU: Final = World(0, 1, torch.device("cpu"))


def new_step(config: PretrainConfig) -> TrainStep[ClipBatch]:
    return TrainStep(Reconstruction(config), build_model(config), settings_of(config), CPU)


class NoRead(TorchDispatchMode):
    """Fails where an op would make the host wait for a GPU: a number read, a size from values."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.name().split("::")[1].split(".")[0]
        assert name not in ("_local_scalar_dense", "nonzero", "masked_select", "is_nonzero"), func
        if name in ("index", "index_put", "index_put_"):
            assert all(each is None or each.dtype != torch.bool for each in args[1]), func
        return func(*args, **(kwargs or {}))


def curve(config: PretrainConfig, steps: int, batches: int) -> list[float]:
    """The losses of steps over a few batches, again and again."""
    step = new_step(config)
    found = []
    for number in range(steps):
        step.forward_backward(batch(8, number % batches), step=number, micro=0)
        row = step.update(3e-3)
        found.append(float(row[0] / row[1]))
    return found
