"""Small kernels that use what tests/support/quick_interpreter.py replaces."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def add_pairs(one, rest, other, other_rest):
    total = one + other
    return total, rest + other_rest + (one - (total - other)) * 0.5


@triton.jit
def larger(one, other):
    if one > other:
        return one
    return other


@triton.jit
def scaled(values, SCALE: tl.constexpr):
    return tl.sum(values, 0)[None, :] * SCALE + tl.max(values)


@triton.jit
def reducing(
    p_in, p_out, AXIS: tl.constexpr, KEEP: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr
):
    """in [ROWS, COLUMNS] -> out [2, what is left]"""
    at = tl.arange(0, ROWS)[:, None] * COLUMNS + tl.arange(0, COLUMNS)
    one = tl.load(p_in + at)
    first, second = tl.reduce((one, one * 0.25), AXIS, add_pairs, keep_dims=KEEP)
    left: tl.constexpr = COLUMNS if AXIS == 0 else ROWS
    to = tl.arange(0, left)
    tl.store(p_out + to, tl.reshape(first, [left]).to(p_out.dtype.element_ty))
    tl.store(p_out + left + to, tl.reshape(second, [left]).to(p_out.dtype.element_ty))


@triton.jit
def largest(p_in, p_out, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    at = tl.arange(0, ROWS)[:, None] * COLUMNS + tl.arange(0, COLUMNS)
    tl.store(p_out + tl.arange(0, COLUMNS), tl.reduce(tl.load(p_in + at), 0, larger))


@triton.jit
def wrapping(p_in, p_out, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """Sums and products of integers that don't fit, and functions within functions."""
    at = tl.arange(0, ROWS)[:, None] * COLUMNS + tl.arange(0, COLUMNS)
    one = tl.load(p_in + at).to(tl.int32, bitcast=True)
    mixed = one * 1664525 + 1013904223 - (one >> 3)
    tl.store(p_out + at, scaled((mixed & 0xFFFF).to(tl.float32), 0.5) + one)
