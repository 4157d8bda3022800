"""Where a token's cube lies in uint8 frames: what the kernels that read pixels share."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor


@triton.jit
def cube_pointer(
    frames_ptr,  # [B, T, H, W, 3] uint8; strides of clip, frame and row given, pixels dense
    i_clip,
    position,  # int32, in token order (slot, then row, then column)
    rows,  # H / PATCH
    columns,  # W / PATCH
    clip_stride,
    frame_stride,
    row_stride,
    TUBELET: tl.constexpr,
    PATCH: tl.constexpr,
):
    """A pointer to the first byte of the token's cube."""
    slot = position // (rows * columns)
    row = position // columns % rows
    return (
        frames_ptr
        + i_clip.to(tl.int64) * clip_stride
        + slot.to(tl.int64) * (TUBELET * frame_stride)
        + row.to(tl.int64) * (PATCH * row_stride)
        + position % columns * (PATCH * 3)
    )


def dense_pixels(frames: Tensor) -> Tensor:
    """The frames themselves if each row's pixels are adjacent (crops, time slices), or a copy."""
    return frames if frames.stride()[3:] == (3, 1) else frames.contiguous()
