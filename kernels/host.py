"""What launchers take, and their arithmetic on the host.

Triton's own `cdiv` and `next_power_of_2` serve kernels too, and take ten microseconds a call on the
host: a step in eager mode has thousands.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

Arguments = Any
"""An op's arguments as attributes, by the names of its reference in ``videomae_fast/ops/<op>.py``,
which says their types and shapes."""


def cdiv(a: int, b: int) -> int:
    """a / b, rounded up."""
    return -(-a // b)


def power_of_2(n: int) -> int:
    """The least power of two that is at least n, which is at least 1."""
    return 1 << (n - 1).bit_length()


def contiguous(*tensors: Tensor | None) -> tuple[Tensor | None, ...]:
    """Tensors, each contiguous; None stays None."""
    return tuple([None if one is None else one.contiguous() for one in tensors])
