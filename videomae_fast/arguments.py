"""What a backend's functions take: the arguments of an op, by name."""

from __future__ import annotations

from typing import Any

from torch import Tensor

Arguments = Any
"""An op's arguments as attributes, by the names of its reference in ``videomae_fast/ops/<op>.py``,
which says their types and shapes; as a tuple in their order."""


def contiguous(*tensors: Tensor | None) -> tuple[Any, ...]:
    """Tensors, each contiguous; None stays None."""
    return tuple([None if one is None else one.contiguous() for one in tensors])
