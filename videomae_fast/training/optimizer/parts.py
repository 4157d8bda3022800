"""AdamW of sharded weights, on each process's own parts."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import Tensor
from torch.optim.adamw import adamw

from videomae_fast.models.dtensor import is_dtensor
from videomae_fast.training.optimizer.adamw import tell_step
from videomae_fast.training.parallel.fsdp import local


def serves(optimizer: torch.optim.Optimizer) -> bool:
    """Whether all that an optimizer trains is sharded, and the optimizer is torch's AdamW."""
    every = (p for group in optimizer.param_groups for p in group["params"])
    return type(optimizer) is torch.optim.AdamW and all(map(is_dtensor, every))


class PartsUpdate:
    """What torch's fused AdamW does to DTensors, which is elementwise, without them.

    DTensors ask for each operation on hundreds of parameters how it is to be sharded, in Python,
    which takes as long as the rest of the update. The optimizer keeps the state, in torch's form;
    hooks on its step run as ever.

    Args:
        optimizer: torch's AdamW with its state made, of parameters that are all sharded alike.
    """

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self._optimizer = optimizer
        self._hooked = torch.optim.Optimizer.profile_hook_step(self._step)

    def gradients(self) -> list[Tensor]:
        """As :meth:`Update.gradients`."""
        groups = self._optimizer.param_groups
        return [p.grad for group in groups for p in group["params"] if p.grad is not None]

    @torch.no_grad()
    def norm(self, gradients: Sequence[Tensor]) -> Tensor:
        """As :meth:`Update.norm`. Every process calls it."""
        parts = [part for part in map(local, gradients) if part.numel() > 0]
        squares = torch.zeros((), device=gradients[0].device)
        if parts:
            norms = torch._foreach_norm(parts, 2.0, dtype=torch.float32)
            squares = torch.linalg.vector_norm(torch.stack(norms)).square()
        for group in _sharing(gradients[0]):
            dist.all_reduce(squares, group=group)
        return squares.sqrt()

    def apply(self, scale: Tensor, skip: Tensor) -> None:
        """As :meth:`Update.apply`."""
        tell_step(self._optimizer, scale, skip)
        self._hooked(self._optimizer, scale, skip)
        self._optimizer.zero_grad(set_to_none=True)

    @torch.no_grad()
    def _step(self, optimizer: torch.optim.Optimizer, scale: Tensor, skip: Tensor) -> None:
        for group in optimizer.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            states = [optimizer.state[p] for p in parameters]
            beta1, beta2 = group["betas"]
            adamw(
                [local(p) for p in parameters],
                [local(p.grad) for p in parameters],
                [local(state["exp_avg"]) for state in states],
                [local(state["exp_avg_sq"]) for state in states],
                [],
                [state["step"] for state in states],
                fused=True,
                grad_scale=scale,
                found_inf=skip,
                amsgrad=False,
                beta1=beta1,
                beta2=beta2,
                lr=group["lr"],
                weight_decay=group["weight_decay"],
                eps=group["eps"],
                maximize=False,
            )


def _sharing(tensor: Tensor) -> list[dist.ProcessGroup]:
    """The groups of those that hold other parts than this process."""
    assert is_dtensor(tensor)
    mesh = tensor.device_mesh
    return [mesh.get_group(at) for at, kind in enumerate(tensor.placements) if kind.is_shard()]
