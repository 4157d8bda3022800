"""A copy of the model on every process, gradients averaged over them."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
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
    # What is on the device is the main process's already
    return DistributedDataParallel(model, gradient_as_bucket_view=True, init_sync=False, **buffers)


@torch.no_grad()
def spread(tensors: Iterable[Tensor], world: World) -> None:
    """Writes the main process's tensors to everybody's: it alone has read them, or drawn them.

    Every process calls it with as many, of the same shapes, in the same order.
    """
    for own in tensors if world.size > 1 else ():
        there = own.to(world.device).contiguous()  # counts of steps may be on the CPU
        dist.broadcast(there, src=0)
        if there is not own:
            own.copy_(there)


def without_sync(model: nn.Module, skip: bool) -> AbstractContextManager[Any]:
    """Leaves out averaging of gradients where `skip`: in all micro-batches but the last."""
    if skip and isinstance(model, DistributedDataParallel):
        context: AbstractContextManager[Any] = model.no_sync()
        return context
    return nullcontext()
