"""Exponential moving average of a model's weights.

Source: ModelEma in timm/utils/model_ema.py (0.4.12), which the official V2 code calls.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn


class AveragedWeights:
    """``average = decay * average + (1 - decay) * weights`` after each step, without warm-up.

    Integer tensors are copied. The average lives on the weights' device, in their dtype, and is
    updated by a few launches for the whole model.

    Args:
        model: whose state dict is averaged; the average begins as a copy of it.
        decay: at least 0 and below 1.

    Raises:
        ValueError: a decay outside that range.
    """

    def __init__(self, model: nn.Module, decay: float = 0.9999) -> None:
        if not 0 <= decay < 1:
            raise ValueError(f"the average's decay ({decay}) must be at least 0 and below 1")
        self.decay = decay
        self.state: dict[str, Tensor] = {
            name: tensor.detach().clone() for name, tensor in model.state_dict().items()
        }

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Takes the weights as they are now into the average."""
        now = model.state_dict()
        smooth = [name for name, tensor in self.state.items() if tensor.is_floating_point()]
        averages = [self.state[name] for name in smooth]
        torch._foreach_mul_(averages, self.decay)
        torch._foreach_add_(averages, [now[name] for name in smooth], alpha=1 - self.decay)
        for name in self.state.keys() - set(smooth):
            self.state[name].copy_(now[name])

    @torch.no_grad()
    def load(self, state: Mapping[str, Tensor]) -> None:
        """Goes on from a saved average (:attr:`state`), in place.

        Raises:
            ValueError: other names or shapes.
        """
        wrong = sorted(self.state.keys() ^ state.keys()) or [
            name for name in self.state if self.state[name].shape != state[name].shape
        ]
        if wrong:
            raise ValueError(f"the averaged weights don't fit the model: {', '.join(wrong[:5])}")
        for name, tensor in state.items():
            self.state[name].copy_(tensor)
