"""Which of a run's tensors is not finite."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from videomae_fast.interop.weights.check import first_where, not_finite

__all__ = ["not_a_number", "not_finite"]


def not_a_number(moments: Mapping[str, Tensor]) -> str | None:
    """The first of an optimizer's tensors with a NaN; an infinite second moment only stops a
    weight from changing."""
    return first_where(moments, torch.isnan)
