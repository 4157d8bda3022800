"""Kernels that are wrong on purpose: the negative controls of the ahead-of-time checks."""

import triton
import triton.language as tl


@triton.jit
def spilling(
    x_ptr,  # [SIZE, 2]
    out_ptr,  # [SIZE]
    SIZE: tl.constexpr,
):
    """256 live values, and as many offsets, in each of a warp's lanes."""
    o_x = tl.arange(0, SIZE)
    b_x = tl.load(x_ptr + o_x)
    for _ in range(4):
        b_x = b_x * tl.sum(b_x, 0) + o_x
    tl.store(out_ptr + o_x, b_x)


@triton.jit
def uncast(
    out_ptr,  # [1], fp32
    count,
):
    """An integer that is 1 is a constant, which has no `to`."""
    tl.store(out_ptr + count.to(tl.int64), 1.0)
