"""Crop and resize: boxes of uint8 clips to one size, by Pillow's antialiased bilinear filter.

One kernel for the views of all clips, whatever their sizes. A program makes a tile of one frame of
one view. Lanes run over the bytes of rows: a pixel's three colours are three neighbours with the
same weights, and both loads and stores run along rows. The first pass is done anew for each output
row that needs its result: with the two or three weights per axis of the usual boxes that is at most
9 loads per byte, from the L1 cache, and neither shared memory nor an intermediate image. Sums are
integers, and the first pass is rounded to a grey level: the bits are Pillow's.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from videomae_fast.kernels.host import cdiv

_FIELDS = tl.constexpr(11)  # of a view, as ops/crop_plan.py lays them out
_PRECISION = tl.constexpr(22)  # bits behind the point of a weight
_HALF = tl.constexpr(1 << 21)


@dataclass(frozen=True)
class Launch:
    """Launch choices; modelled, not yet measured on a GPU.

    Attributes:
        rows: of a tile. 4 bytes a thread take 40 to 48 registers; 8 take twice that, and fewer
            programs are in flight to hide the latency of loads that follow from one another.
        bytes: of a row in a tile. A row of 224 pixels has 672: 5.25 tiles, few idle lanes.
        num_warps: 4, one for each row of the tile.
    """

    rows: int = 4
    bytes: int = 128
    num_warps: int = 4
    num_stages: int = 1


LAUNCH = Launch()


@triton.jit
def crop_resize_kernel(
    views_ptr,  # [V, _FIELDS] int64
    tables_ptr,  # int32; per output pixel the first source pixel, then the weights
    out_ptr,  # [V, T, height, width, 3] uint8
    frames,  # T
    height,
    width,
    ROWS: tl.constexpr,
    BYTES: tl.constexpr,
):
    i_frame = tl.program_id(0)  # of all views
    p_view = views_ptr + i_frame // frames * _FIELDS
    p_frame = tl.load(p_view + 1).to(tl.pointer_type(tl.uint8))
    p_frame += i_frame % frames * tl.load(p_view + 2)
    row_stride = tl.load(p_view + 3).to(tl.int32)
    taps_across = tl.load(p_view + 7).to(tl.int32)
    taps_down = tl.load(p_view + 9).to(tl.int32)
    flip = tl.load(p_view + 10).to(tl.int32)

    o_row = tl.program_id(1) * ROWS + tl.arange(0, ROWS)  # [ROWS]
    m_row = o_row < height
    o_byte = tl.program_id(2) * BYTES + tl.arange(0, BYTES)  # [BYTES]
    m_byte = o_byte < 3 * width
    m_tile = m_row[:, None] & m_byte[None, :]
    column = o_byte // 3
    column += flip * (width - 1 - 2 * column)
    p_across = tables_ptr + tl.load(p_view + 6) + column * (1 + taps_across)
    p_down = tables_ptr + tl.load(p_view + 8) + o_row * (1 + taps_down)
    first_byte = tl.load(p_across, mask=m_byte, other=0) * 3 + o_byte % 3
    first_row = tl.load(p_down, mask=m_row, other=0)
    o_pixel = (first_row * row_stride)[:, None] + first_byte[None, :]  # [ROWS, BYTES]

    b_out = tl.full([ROWS, BYTES], _HALF, tl.int32)
    for i_down in range(taps_down):
        b_line = tl.full([ROWS, BYTES], _HALF, tl.int32)
        for i_across in range(taps_across):
            b_weight = tl.load(p_across + 1 + i_across, mask=m_byte, other=0)  # [BYTES]
            b_pixel = tl.load(p_frame + o_pixel + 3 * i_across, mask=m_tile, other=0)
            b_line += b_weight[None, :] * b_pixel.to(tl.int32)
        b_weight = tl.load(p_down + 1 + i_down, mask=m_row, other=0)  # [ROWS]
        b_out += b_weight[:, None] * (b_line >> _PRECISION)
        p_frame += row_stride

    p_out = out_ptr + i_frame.to(tl.int64) * height * width * 3
    p_out += (o_row * (3 * width))[:, None] + o_byte[None, :]
    tl.store(p_out, (b_out >> _PRECISION).to(tl.uint8), mask=m_tile)


def crop_resize(views: Tensor, tables: Tensor, out: Tensor) -> None:
    """Fills `out`, uint8 [V, T, H, W, 3], with the views of a plan of ops/crop_plan.py.

    `views` and `tables` lie on the CPU and are sent to the device without waiting for it. The clips
    that the views point to must stay until the kernel was launched on the current stream.
    """
    if out.numel() == 0:
        return
    count, frames, height, width, _ = out.shape
    grid = (count * frames, cdiv(height, LAUNCH.rows), cdiv(3 * width, LAUNCH.bytes))
    with torch.cuda.device_of(out):
        crop_resize_kernel[grid](
            _sent(views, out.device),
            _sent(tables, out.device),
            out,
            frames,
            height,
            width,
            ROWS=LAUNCH.rows,
            BYTES=LAUNCH.bytes,
            num_warps=LAUNCH.num_warps,
            num_stages=LAUNCH.num_stages,
        )


def _sent(tensor: Tensor, device: torch.device) -> Tensor:
    """The tensor on the device; from page-locked memory, so that nothing waits."""
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)
