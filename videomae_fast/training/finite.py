"""Which of a run's tensors is not finite."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor


def not_finite(weights: Mapping[str, Tensor]) -> str | None:
    """The first of some weights with a NaN or an infinite value, in words; None without one.

    Reads every value, and waits for the device.
    """
    return _first(weights, lambda tensor: tensor.isfinite().logical_not())


def not_a_number(moments: Mapping[str, Tensor]) -> str | None:
    """The first of an optimizer's tensors with a NaN; an infinite second moment only stops a
    weight from changing."""
    return _first(moments, torch.isnan)


def _first(tensors: Mapping[str, Tensor], wrong: Callable[[Tensor], Tensor]) -> str | None:
    for name, tensor in tensors.items():
        count = int(wrong(tensor).sum())
        if count:
            return f"{name} ({count:,} of {tensor.numel():,} values)"
    return None
