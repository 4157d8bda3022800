"""AdamW with the official parameter groups, its state by parameter name."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from videomae_fast.errors import BackendUnavailableError
from videomae_fast.training import apex_adam
from videomae_fast.training.errors import CheckpointError

MOMENTS = ("exp_avg", "exp_avg_sq", "step")
"""What fused AdamW keeps for a parameter: two tensors of its shape, and an fp32 scalar."""


def has_no_decay(name: str, parameter: Tensor, exempt: Collection[str] = ()) -> bool:
    """Whether a parameter gets no weight decay.

    Those are 1-D parameters, biases, LayerScale's ``.scale`` and what the model exempts
    (``mask_token``, ``encoder.pos_embed``).

    Source: get_parameter_groups in optim_factory.py of the official V2 code.
    """
    return parameter.ndim == 1 or name.endswith((".bias", ".scale")) or name in exempt


def parameter_groups(
    model: nn.Module, weight_decay: float, exempt: Collection[str] = ()
) -> list[dict[str, Any]]:
    """Two groups, with weight decay and without; frozen parameters are in none."""
    decay: list[nn.Parameter] = []
    no_decay: list[nn.Parameter] = []
    for name, parameter in _trained(model):
        (no_decay if has_no_decay(name, parameter, exempt) else decay).append(parameter)
    groups = ({"params": decay, "weight_decay": weight_decay},
              {"params": no_decay, "weight_decay": 0.0})  # fmt: skip
    return [group for group in groups if group["params"]]


def make_optimizer(
    model: nn.Module,
    *,
    weight_decay: float,
    betas: tuple[float, float],
    eps: float = 1e-8,
    exempt: Collection[str] = (),
    impl: str = "adamw",
) -> torch.optim.Optimizer:
    """Fused AdamW for a model that is on its device; the learning rate is set before each step.

    Only fused kernels (torch's, CPU and CUDA, and apex's) take the gradient's scale and the
    non-finite flag as tensors, which is how a step goes without reading anything back from the
    device. The state is made at once, so that a checkpoint before the first step is as whole as
    any other; it is the same for both.

    Args:
        impl: "adamw", which is torch's, or "apex", which is NVIDIA apex's.

    Raises:
        BackendUnavailableError: apex was asked for and can't run; the message says why.
    """
    groups = parameter_groups(model, weight_decay, exempt)
    optimizer: torch.optim.Optimizer
    if impl == "apex":
        reason = apex_adam.why_not(next(model.parameters()).device)
        if reason is not None:
            raise BackendUnavailableError(
                f"optimizer apex can't run: {reason}; optimizer adamw (torch's) runs everywhere"
            )
        optimizer = apex_adam.ApexAdamW(groups, betas=betas, eps=eps)
    else:
        optimizer = torch.optim.AdamW(groups, lr=0.0, betas=betas, eps=eps, fused=True)
    for _, parameter in _trained(model):
        optimizer.state[parameter] = {
            "step": torch.zeros((), dtype=torch.float32, device=parameter.device),
            "exp_avg": torch.zeros_like(parameter, memory_format=torch.preserve_format),
            "exp_avg_sq": torch.zeros_like(parameter, memory_format=torch.preserve_format),
        }
    return optimizer


def optimizer_state(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """``exp_avg.<parameter>``, ``exp_avg_sq.<parameter>`` and ``step.<parameter>`` of each."""
    return {
        f"{moment}.{name}": optimizer.state[parameter][moment]
        for name, parameter in _trained(model)
        for moment in MOMENTS
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
    wrong = sorted(set(own) ^ set(state)) or [
        name for name in own if own[name].shape != state[name].shape
    ]
    if wrong:
        raise CheckpointError(
            f"the optimizer's state does not fit the model: {', '.join(wrong[:5])}"
            + (f" and {len(wrong) - 5} more" if len(wrong) > 5 else "")
        )
    if isinstance(optimizer, apex_adam.ApexAdamW):
        counts = {float(tensor) for name, tensor in state.items() if name.startswith("step.")}
        if len(counts) > 1:
            raise CheckpointError(
                "the optimizer's state has parameters with different numbers of steps, which apex "
                "can't go on from: use optimizer adamw"
            )
    for name, tensor in own.items():
        tensor.copy_(state[name])


def _trained(model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    return ((name, p) for name, p in model.named_parameters() if p.requires_grad)
