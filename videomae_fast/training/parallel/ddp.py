"""A copy of the model on every process, gradients averaged over them."""

from __future__ import annotations

import inspect
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from torch import nn
from torch.nn.parallel import DistributedDataParallel

from videomae_fast.training.parallel.world import World


def replicate(model: nn.Module, world: World) -> nn.Module:
    """The model with gradients averaged over the processes, or itself where there is one."""
    if world.size == 1:
        return model
    # Position tables never change: no need to broadcast them before each forward pass.
    parameters = inspect.signature(DistributedDataParallel.__init__).parameters
    renamed = "forward_sync_buffers" in parameters  # in torch 2.13
    buffers: dict[str, Any] = {"forward_sync_buffers" if renamed else "broadcast_buffers": False}
    return DistributedDataParallel(model, gradient_as_bucket_view=True, **buffers)


def without_sync(model: nn.Module, skip: bool) -> AbstractContextManager[Any]:
    """Leaves out averaging of gradients where `skip`: in all micro-batches but the last."""
    if skip and isinstance(model, DistributedDataParallel):
        context: AbstractContextManager[Any] = model.no_sync()
        return context
    return nullcontext()
