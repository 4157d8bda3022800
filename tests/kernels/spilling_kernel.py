"""A kernel that must spill: the negative control of the ahead-of-time checks."""

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
