"""States that are spread over processes: torch's ``fully_shard`` (FSDP2), block by block.

Each process holds a part of every weight, gradient and moment. A block's weights are gathered when
it works; its gradients are averaged and scattered. With several copies (HSDP) what is scattered
is averaged over these too. What a process reads and writes of a parameter is a DTensor, of which
:func:`local` is this process's part.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh

from videomae_fast.models.dtensor import is_dtensor
from videomae_fast.models.positions import remake_tables
from videomae_fast.models.transformer import Block, set_sharded
from videomae_fast.training.parallel.layout import Layout
from videomae_fast.training.parallel.world import World

if TYPE_CHECKING:
    from typing import TypeGuard

    from torch.distributed.fsdp import FSDPModule


def shard(model: nn.Module, layout: Layout, world: World, *, bf16: bool, compiled: bool) -> None:
    """Spreads a model over processes, in place; every process calls it.

    Args:
        model: of the main process, on the CPU, with its weights; the others' may be on meta, their
            values don't count.
        layout: where things lie.
        world: the processes.
        bf16: weights are gathered, and blocks compute, in bf16; gradients are averaged in fp32.
        compiled: each block is one graph.

    Raises:
        RuntimeError: the backend adds up where it should average.
    """
    # Takes a second, which runs that are not sharded go without
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

    _check_average(world)
    weights = dict(model.state_dict()) if world.is_main else {}
    blocks = [module for module in model.modules() if isinstance(module, Block)]
    set_sharded(model)
    model.to("meta")
    if compiled:
        for block in blocks:  # forward alone: what gathers before it and frees after it is no graph
            setattr(block, "forward", torch.compile(block.forward, fullgraph=True))  # noqa: B010
    # Of tensors that a block hands on; nothing here changes one in place
    warnings.filterwarnings("ignore", "FSDP2-wrapped module .* returned a view tensor", UserWarning)
    dtype = torch.bfloat16 if bf16 else None
    # Inputs keep their dtypes: fp32 weights of the loss are among them
    policy = MixedPrecisionPolicy(dtype, torch.float32, cast_forward_inputs=False)
    copies, parts = world.size // layout.shard, layout.shard
    names = ("copies", "parts")
    if copies == 1:
        mesh = init_device_mesh(world.device.type, (parts,), mesh_dim_names=names[1:])
    else:
        mesh = init_device_mesh(world.device.type, (copies, parts), mesh_dim_names=names)
    world.groups.extend(mesh.get_all_groups())
    for module in blocks:
        fully_shard(module, mesh=mesh, reshard_after_forward=layout.reshard, mp_policy=policy)
    # Its own parameters are needed until the end of forward, and at once in backward
    fully_shard(model, mesh=mesh, reshard_after_forward=False, mp_policy=policy)
    model.to_empty(device=world.device)
    remake_tables(model)
    _distribute(model, weights, world)


@torch.no_grad()
def _distribute(model: nn.Module, weights: Mapping[str, Tensor], world: World) -> None:
    """Writes the main process's weights to everybody's parts, tensor by tensor."""
    for name, own in model.state_dict().items():
        whole = weights[name].to(world.device) if world.is_main else None
        if whole is None:
            whole = torch.empty(own.shape, dtype=own.dtype, device=world.device)
        dist.broadcast(whole, src=0)
        write(own, whole)


@torch.no_grad()
def write(own: Tensor, whole: Tensor) -> None:
    """Writes a whole tensor, which this process has, to its part of it; nobody is asked."""
    if is_dtensor(own):
        from torch.distributed.tensor import distribute_tensor

        whole = whole.to(device=own.device, dtype=own.dtype)
        part = distribute_tensor(whole, own.device_mesh, own.placements, src_data_rank=None)
        local(own).copy_(local(part))
    else:
        own.copy_(whole)


def local(tensor: Tensor) -> Tensor:
    """What this process holds of a tensor: its part, or all of one that is not sharded."""
    return tensor.to_local() if is_dtensor(tensor) else tensor


def whole(tensor: Tensor) -> Tensor:
    """All of a tensor. Every process calls it, in the same order."""
    return tensor.full_tensor() if is_dtensor(tensor) else tensor


def whole_tensors(tensors: Mapping[str, Tensor], world: World) -> dict[str, Tensor]:
    """All of some tensors, for the main process; sharded ones on its CPU. All call it."""
    found = {}
    for name, tensor in tensors.items():
        every = whole(tensor.detach()).cpu() if is_dtensor(tensor) else tensor
        if world.is_main:
            found[name] = every
    return found


def shards(model: nn.Module) -> TypeGuard[FSDPModule]:
    """Whether a model is spread over processes."""
    kind = getattr(sys.modules.get("torch.distributed.fsdp"), "FSDPModule", None)
    return kind is not None and isinstance(model, kind)


def without_scatter(model: nn.Module, skip: bool, layout: Layout) -> None:
    """Where `skip`, gradients stay whole until the last micro-batch; that takes their memory, so
    it is for weights that stay gathered too."""
    if shards(model) and not layout.reshard:
        model.set_requires_gradient_sync(not skip)


@contextmanager
def gathered(model: nn.Module) -> Iterator[None]:
    """While entered, every process holds all weights as blocks use them and no forward pass waits
    for another process, so that each may make as many as it has to. All enter it together."""
    modules = list(_sharded(model.modules()))
    if not modules:
        yield
        return
    before = [_reshards(module) for module in modules]
    try:
        for module in modules:
            module.set_reshard_after_forward(False, recurse=False)
            module.unshard()
        yield
    finally:
        for module, again in zip(modules, before, strict=True):
            module.reshard()
            module.set_reshard_after_forward(again, recurse=False)


def _sharded(modules: Iterable[nn.Module]) -> Iterator[FSDPModule]:
    return (module for module in modules if shards(module))


def _reshards(module: FSDPModule) -> Any:
    group = module._get_fsdp_state()._fsdp_param_group
    return group is not None and group._reshard_after_forward


def _check_average(world: World) -> None:
    """Gradients are averaged by the backend; an old gloo adds up without a word."""
    size = world.size
    every = torch.full((size,), float(world.rank), device=world.device)
    mine = torch.empty(1, device=world.device)
    # Renamed in torch 2.13
    scatter = getattr(dist, "reduce_scatter_single", None) or dist.reduce_scatter_tensor
    scatter(mine, every, dist.ReduceOp.AVG)
    if float(mine) != (size - 1) / 2:
        raise RuntimeError(
            f"torch's {dist.get_backend()} gives {float(mine)} for the average of 0 ... {size - 1}:"
            " it can't train sharded models; use shard none, or a newer torch"
        )
