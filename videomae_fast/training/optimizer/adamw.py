"""AdamW by a fused kernel, torch's or apex's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from videomae_fast.errors import BackendUnavailableError
from videomae_fast.training.optimizer import apex_adam


def make_optimizer(
    groups: Sequence[dict[str, Any]],
    *,
    betas: tuple[float, float],
    eps: float = 1e-8,
    impl: str = "adamw",
) -> torch.optim.Optimizer:
    """Fused AdamW for parameters on their device; the learning rate is set before each step.

    Only fused kernels (torch's, CPU and CUDA, and apex's) take the gradient's scale and the
    non-finite flag as tensors, which is how a step goes without reading anything back from the
    device. The state is made at once, so that a checkpoint before the first step is as whole as
    any other; it is the same for both.

    Args:
        groups: as torch's optimizers take them; ``lr_scale`` in one multiplies its learning rate.
        impl: "adamw", which is torch's, or "apex", which is NVIDIA apex's.

    Raises:
        BackendUnavailableError: apex was asked for and can't run; the message says why.
    """
    parameters = [parameter for group in groups for parameter in group["params"]]
    optimizer: torch.optim.Optimizer
    if impl == "apex":
        reason = apex_adam.why_not(parameters[0].device)
        if reason is not None:
            raise BackendUnavailableError(
                f"optimizer apex can't run: {reason}; optimizer adamw (torch's) runs everywhere"
            )
        optimizer = apex_adam.ApexAdamW(groups, betas=betas, eps=eps)
    else:
        optimizer = torch.optim.AdamW(groups, lr=0.0, betas=betas, eps=eps, fused=True)
    for group in optimizer.param_groups:
        group["decays"] = group["weight_decay"] > 0
    for parameter in parameters:
        optimizer.state[parameter] = {
            "step": torch.zeros((), dtype=torch.float32, device=parameter.device),
            "exp_avg": torch.zeros_like(parameter, memory_format=torch.preserve_format),
            "exp_avg_sq": torch.zeros_like(parameter, memory_format=torch.preserve_format),
        }
    return optimizer


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """The rate of the next step: of each group times its ``lr_scale``, where it has one.

    A rate that lies on the device stays in its place.
    """
    for group in optimizer.param_groups:
        own = rate * group.get("lr_scale", 1.0)
        if isinstance(group["lr"], torch.Tensor):
            group["lr"].fill_(own)
        else:
            group["lr"] = own


def set_weight_decay(optimizer: torch.optim.Optimizer, decay: float) -> None:
    """The weight decay of the next step, of the groups that were made with one.

    A number of the host's for both kernels, so a recorded step keeps the one that it was recorded
    with: what changes it from step to step is not captured.
    """
    for group in optimizer.param_groups:
        if group["decays"]:
            group["weight_decay"] = decay


def tell_step(optimizer: torch.optim.Optimizer, scale: torch.Tensor, skip: torch.Tensor) -> None:
    """What the next step goes by, where torch's GradScaler tells it: kernels and hooks read it.

    Args:
        optimizer: torch's, or apex's as it is here.
        scale: fp32 scalar that the gradients are divided by.
        skip: fp32 scalar; where it is not 0, nothing changes.
    """
    setattr(optimizer, "grad_scale", scale)  # noqa: B010
    setattr(optimizer, "found_inf", skip)  # noqa: B010


def rates_to_device(optimizer: torch.optim.Optimizer, device: torch.device) -> None:
    """Lets torch's optimizer read its learning rates on the device, as recorded steps do."""
    for group in optimizer.param_groups:
        group["lr"] = torch.tensor(float(group["lr"]), dtype=torch.float32, device=device)
        group["capturable"] = True
