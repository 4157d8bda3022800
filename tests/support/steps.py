"""Single steps of tiny models: batches, a new step, and what a step may not do."""

from __future__ import annotations

from typing import Any, Final

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from videomae_fast.data import ClipBatch
from videomae_fast.recipes import PretrainConfig
from videomae_fast.tasks.pretraining import Reconstruction, build_model, settings_of
from videomae_fast.training.parallel.world import World
from videomae_fast.training.step import TrainStep

CPU: Final = World(0, 1, torch.device("cpu"))


def new_step(config: PretrainConfig) -> TrainStep[ClipBatch]:
    return TrainStep(Reconstruction(config), build_model(config), settings_of(config), CPU)


def batch(clips: int, seed: int, failed: tuple[int, ...] = ()) -> ClipBatch:
    generator = torch.Generator().manual_seed(seed)
    frames = torch.randint(0, 256, (clips, 4, 32, 32, 3), dtype=torch.uint8, generator=generator)
    ok = torch.tensor([clip not in failed for clip in range(clips)])
    frames[~ok] = 0
    seeds = torch.randint(2**62, (clips,), generator=generator)
    return ClipBatch(frames, seeds, ok, torch.full((clips,), -1), [])


def split(whole: ClipBatch, parts: int) -> list[ClipBatch]:
    tensors = (whole.frames, whole.mask_seeds, whole.ok, whole.labels)
    return [ClipBatch(*chunk, []) for chunk in zip(*(t.chunk(parts) for t in tensors), strict=True)]


class NoRead(TorchDispatchMode):
    """Fails where an op would make the host wait for a GPU: a number read, a size from values."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.name().split("::")[1].split(".")[0]
        assert name not in ("_local_scalar_dense", "nonzero", "masked_select", "is_nonzero"), func
        if name in ("index", "index_put", "index_put_"):
            assert all(each is None or each.dtype != torch.bool for each in args[1]), func
        return func(*args, **(kwargs or {}))
