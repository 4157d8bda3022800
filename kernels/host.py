"""Arithmetic of launches on the host.

Triton's own `cdiv` and `next_power_of_2` serve kernels too, and take ten microseconds a call on the
host: a step in eager mode has thousands.
"""

from __future__ import annotations


def cdiv(a: int, b: int) -> int:
    """a / b, rounded up."""
    return -(-a // b)


def power_of_2(n: int) -> int:
    """The least power of two that is at least n, which is at least 1."""
    return 1 << (n - 1).bit_length()
