"""What an optimizer keeps, by parameter name, as checkpoints hold it."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from videomae_fast.training.checkpoint import Saved
from videomae_fast.training.errors import CheckpointError
from videomae_fast.training.optimizer.apex_adam import ApexAdamW
from videomae_fast.training.optimizer.groups import trained
from videomae_fast.training.parallel.fsdp import local, write


def optimizer_state(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """``<kind>.<parameter>`` of every tensor that the optimizer keeps for a parameter.

    AdamW's kinds are ``exp_avg``, ``exp_avg_sq`` (of the parameter's shape) and ``step`` (an fp32
    scalar). What a task adds to an optimizer's state, as a moving average of the weights, is
    saved and goes on likewise.
    """
    return {
        f"{kind}.{name}": tensor
        for name, parameter in trained(model)
        for kind, tensor in optimizer.state[parameter].items()
    }


def load_optimizer_state(
    model: nn.Module, optimizer: torch.optim.Optimizer, state: Mapping[str, Tensor]
) -> None:
    """The inverse of :func:`optimizer_state`, in place.

    Raises:
        CheckpointError: something is missing, left over, or of another shape; or parameters were
            updated different numbers of times, and the optimizer is apex's, which counts once.
    """
    own = optimizer_state(model, optimizer)
    _check_fits(own, {name: tensor.shape for name, tensor in state.items()})
    if isinstance(optimizer, ApexAdamW):
        counts = {float(tensor) for name, tensor in state.items() if name.startswith("step.")}
        if len(counts) > 1:
            raise CheckpointError(
                "the optimizer's state has parameters with different numbers of steps, which apex "
                "can't go on from: use optimizer adamw"
            )
    for name, tensor in own.items():
        write(tensor, state[name])


def read_optimizer_state(
    model: nn.Module, optimizer: torch.optim.Optimizer, saved: Saved
) -> dict[str, Tensor]:
    """The same from a checkpoint, where the model is spread over processes: each reads its parts.

    Returns:
        What this process has of each tensor.

    Raises:
        CheckpointError: something is missing, left over, or of another shape.
        WeightsError: a file is damaged.
    """
    own = optimizer_state(model, optimizer)
    _check_fits(own, saved.optimizer_shapes())
    saved.read_optimizer(own)
    return {name: local(tensor) for name, tensor in own.items()}


def _check_fits(own: Mapping[str, Tensor], there: Mapping[str, torch.Size]) -> None:
    """Raises CheckpointError for other names or shapes than the optimizer's."""
    wrong = sorted(set(own) ^ set(there)) or [
        name for name in own if own[name].shape != there[name]
    ]
    if wrong:
        raise CheckpointError(
            f"the optimizer's state does not fit the model: {', '.join(wrong[:5])}"
            + (f" and {len(wrong) - 5} more" if len(wrong) > 5 else "")
        )
