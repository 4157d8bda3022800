"""A moving average of the weights that is part of the optimizer's state: saved, and resumed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import torch
from torch import Tensor, nn

from videomae_fast.training.parallel.fsdp import local

KIND: Final = "ema"
"""The entry of each parameter's state."""


def keep_average(optimizer: torch.optim.Optimizer, decay: float) -> None:
    """Has an optimizer move an average of its parameters on with each step that it makes.

    ``average = decay * average + (1 - decay) * weights``, without warm-up; it begins as a copy. A
    step that is left out, since its loss was not finite, leaves the average too. Nothing is read
    from the device.

    Args:
        optimizer: of a run's step, which sets ``found_inf``.
        decay: at least 0 and below 1.

    Source: ModelEma in timm/utils/model_ema.py (0.4.12), which the official V2 code calls.
    """
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    for parameter in parameters:
        optimizer.state[parameter][KIND] = parameter.detach().clone()

    @torch.no_grad()
    def move_on(stepped: torch.optim.Optimizer, args: Any, options: Any) -> None:
        found_inf: Tensor = stepped.found_inf  # type: ignore[attr-defined]
        share = torch.where(found_inf > 0, 0.0, 1 - decay)
        averages = [local(stepped.state[parameter][KIND]) for parameter in parameters]
        torch._foreach_mul_(averages, 1 - share)
        torch._foreach_add_(averages, torch._foreach_mul(list(map(local, parameters)), share))

    optimizer.register_step_post_hook(move_on)


@contextmanager
def averaged(model: nn.Module, optimizer: torch.optim.Optimizer) -> Iterator[None]:
    """While entered the model's weights are their averages; then they are what they were."""
    _swap(model, optimizer)
    try:
        yield
    finally:
        _swap(model, optimizer)


@torch.no_grad()
def _swap(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    for parameter in model.parameters():
        if parameter.requires_grad:
            average = optimizer.state[parameter][KIND]
            before = parameter.clone()
            parameter.copy_(average)
            average.copy_(before)
