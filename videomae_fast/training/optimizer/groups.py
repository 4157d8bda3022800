"""Which parameters are trained, and which of them without weight decay."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

from torch import Tensor, nn


def trained(model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """The parameters that are not frozen, by name."""
    return ((name, p) for name, p in model.named_parameters() if p.requires_grad)


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
    for name, parameter in trained(model):
        (no_decay if has_no_decay(name, parameter, exempt) else decay).append(parameter)
    groups = ({"params": decay, "weight_decay": weight_decay},
              {"params": no_decay, "weight_decay": 0.0})  # fmt: skip
    return [group for group in groups if group["params"]]
