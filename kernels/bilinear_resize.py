"""Bilinear resize of uint8 frames without antialiasing: OpenCV's fixed point, the same bytes.

Where an output pixel reads and with which weights is worked out for each row and column of a tile
anew, in fp64 and fp32 as the reference does: less than reading tables. Lanes run over the bytes of
rows, so loads and stores of a warp are one run, or near it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from videomae_fast.arguments import Arguments
from videomae_fast.kernels.host import cdiv

# The least fp32 whose next one is 1 more: a sum with it is rounded to even
_TO_EVEN = tl.constexpr(12582912.0)


@dataclass(frozen=True)
class Launch:
    """Launch choices; modelled, not yet measured on a GPU.

    Attributes:
        rows, bytes: of a tile, 8 bytes a lane.
        num_warps: of a program.
    """

    rows: int = 8
    bytes: int = 128
    num_warps: int = 4


LAUNCH = Launch()


@triton.jit
def _cells(o_out, length, size):
    """int32 the input pixel before each output pixel's centre, and the fp32 share beyond it."""
    one = tl.full([1], 1.0, tl.float64)
    scale = one / ((one * size) / (one * length))
    b_place = ((o_out.to(tl.float64) + 0.5) * scale - 0.5).to(tl.float32)
    b_cell = tl.floor(b_place)
    return b_cell.to(tl.int32), b_place - b_cell


@triton.jit
def _weight(b_share):
    """int32 of 2048, rounded to even."""
    return (b_share * 2048.0 + _TO_EVEN - _TO_EVEN).to(tl.int32)


@triton.jit
def _sums(p_row, m_row, o_left, o_right, b_left, b_right, m_byte):
    """int32 [ROWS, BYTES]: pixels of a row side by side, in 11 bits, less 4."""
    b_first = tl.load(p_row[:, None] + o_left[None, :], mask=m_row[:, None] & m_byte, other=0)
    b_second = tl.load(p_row[:, None] + o_right[None, :], mask=m_row[:, None] & m_byte, other=0)
    return (b_first.to(tl.int32) * b_left + b_second.to(tl.int32) * b_right) >> 4


@triton.jit
def resize_kernel(
    frames_ptr,  # [T, height, width, 3] uint8
    out_ptr,  # [T, out_height, out_width, 3] uint8
    height,
    width,
    out_height,
    out_width,
    ROWS: tl.constexpr,
    BYTES: tl.constexpr,
):
    i_frame = tl.program_id(0).to(tl.int64)
    o_row = tl.program_id(1) * ROWS + tl.arange(0, ROWS)  # [ROWS]
    o_byte = tl.program_id(2) * BYTES + tl.arange(0, BYTES)  # [BYTES]
    m_row, m_byte = o_row < out_height, (o_byte < 3 * out_width)[None, :]
    o_column, o_channel = o_byte // 3, o_byte % 3

    b_column, b_across = _cells(o_column, width, out_width)
    # Beyond the first and the last column there is that column alone; rows keep their weights
    b_across = tl.where((b_column < 0) | (b_column >= width - 1), 0.0, b_across)
    b_column = tl.minimum(tl.maximum(b_column, 0), width - 1)
    o_left = 3 * b_column + o_channel
    o_right = 3 * tl.minimum(b_column + 1, width - 1) + o_channel
    b_left, b_right = _weight(1.0 - b_across)[None, :], _weight(b_across)[None, :]

    b_row, b_down = _cells(o_row, height, out_height)
    b_upper, b_lower = _weight(1.0 - b_down)[:, None], _weight(b_down)[:, None]
    o_above = tl.minimum(tl.maximum(b_row, 0), height - 1)
    o_below = tl.minimum(tl.maximum(b_row + 1, 0), height - 1)
    p_frame = frames_ptr + i_frame * height * width * 3
    p_above, p_below = p_frame + o_above * (width * 3), p_frame + o_below * (width * 3)
    b_above = _sums(p_above, m_row, o_left, o_right, b_left, b_right, m_byte)
    b_below = _sums(p_below, m_row, o_left, o_right, b_left, b_right, m_byte)
    b_out = ((b_upper * b_above >> 16) + (b_lower * b_below >> 16) + 2) >> 2

    p_out = out_ptr + i_frame * out_height * out_width * 3
    o_out = o_row[:, None] * (out_width * 3) + o_byte[None, :]
    tl.store(p_out + o_out, b_out.to(tl.uint8), mask=m_row[:, None] & m_byte)


def bilinear_resize(args: Arguments) -> Tensor:
    """uint8 [T, H, W, 3] to [T, height, width, 3], contiguous."""
    frames, height, width = args.frames.contiguous(), args.height, args.width
    out: Tensor = frames.new_empty((len(frames), height, width, 3))
    if out.numel() == 0:
        return out
    grid = (len(frames), cdiv(height, LAUNCH.rows), cdiv(3 * width, LAUNCH.bytes))
    with torch.cuda.device_of(frames):
        resize_kernel[grid](
            frames,
            out,
            *frames.shape[1:3],
            height,
            width,
            ROWS=LAUNCH.rows,
            BYTES=LAUNCH.bytes,
            num_warps=LAUNCH.num_warps,
            enable_fp_fusion=False,  # places are rounded as the reference's
        )
    return out
