"""RoI features: the mean of tokens over time, RoIAlign and the maximum over the bins of each box.

Forward is three launches: what rows and columns count in the bins of each box (784 bytes a box, in
the place of samples), the maps (the only pass over tokens), and the bins, which stay in registers.
Backward is one: a program owns cells of a clip and adds the clip's boxes in their order. No
atomics: two runs are equal bit for bit.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from videomae_fast.arguments import Arguments
from videomae_fast.kernels.host import cdiv, power_of_2


@dataclass(frozen=True)
class Launch:
    """Launch choices; modelled, not yet measured on a GPU.

    Attributes:
        values: of a map that a program averages: 8 a lane, so that 16 bytes of bf16 are loaded at
            once, from all slots before the first sum.
        columns: of a map that are worked on at once; 14 of them at 224 pixels.
        channels: of a program that makes bins: its 8 x 8 bins are 16 values a lane, a product of
            columns and channels 32. Few, so that few boxes make many programs.
        channels_backward: its tile of columns x channels is 16 values a lane.
    """

    values: int = 1024
    columns: int = 16
    channels: int = 32
    channels_backward: int = 128
    num_warps: int = 4


LAUNCH = Launch()


@triton.jit
def _axis_weights(
    low,
    high,
    good,
    p_out,  # [SIZE, length]
    length,
    scale,
    SIZE: tl.constexpr,
    RATIO: tl.constexpr,
    ALIGNED: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_L: tl.constexpr,
):
    """As ``axis_weights`` in videomae_fast/ops/roi_align.py, each operation rounded."""
    offset = 0.5 if ALIGNED else 0.0
    begin = low * scale - offset
    extent = high * scale - offset - begin
    if not ALIGNED:
        extent = tl.maximum(extent, 1.0)
    cells = tl.cast(length, tl.float32)
    bin_size = tl.div_rn(extent, SIZE * 1.0)
    if RATIO > 0:
        count = tl.full([], RATIO, tl.float32)
        step = bin_size  # not used
        n_samples = RATIO
    else:
        count = tl.maximum(tl.ceil(bin_size), 0.0)
        step = tl.maximum(tl.div_rn(bin_size, tl.maximum(count, 1.0)), 0.5)
        reach = tl.minimum(count, tl.div_rn(cells + 1.0, step) + 4.0)
        n_samples = tl.minimum(reach, 2.0 * cells + 6.0).to(tl.int32)
    samples = tl.maximum(count, 1.0)
    o_p = tl.arange(0, BLOCK_P)
    start = begin + o_p.to(tl.float32) * bin_size  # [BLOCK_P]
    first = tl.zeros([BLOCK_P], tl.float32)
    if RATIO == 0:
        # The first sample that may lie within the map: few of a huge box do
        inside = tl.maximum(tl.floor(tl.div_rn(-1.0 - start, step) - 1.0), 0.0)
        first = tl.where(count > 1.0, inside, 0.0)
    for o_start in range(0, length, BLOCK_L):
        o_cell = o_start + tl.arange(0, BLOCK_L)  # [BLOCK_L]
        b_weight = tl.zeros([BLOCK_P, BLOCK_L], tl.float32)
        for i in range(n_samples):
            sample = first + i
            place = start + tl.div_rn((sample + 0.5) * bin_size, samples)
            counts = (sample < count) & (place >= -1.0) & (place <= cells)
            at = tl.minimum(tl.maximum(place, 0.0), cells - 1.0)
            near = 1.0 - tl.abs(at[:, None] - o_cell.to(tl.float32)[None, :])
            b_weight += tl.where(counts[:, None], tl.maximum(near, 0.0), 0.0)
        b_weight = tl.where(good, tl.div_rn(b_weight, samples), float("nan"))
        m_out = (o_p < SIZE)[:, None] & (o_cell < length)[None, :]
        tl.store(p_out + o_p[:, None] * length + o_cell[None, :], b_weight, mask=m_out)


@triton.jit
def roi_weights_kernel(
    boxes_ptr,  # [N, 4] fp32: x1, y1, x2, y2
    down_ptr,  # [N, SIZE, height] fp32
    across_ptr,  # [N, SIZE, width] fp32
    height,
    width,
    scale,
    SIZE: tl.constexpr,
    RATIO: tl.constexpr,  # samples along a side of a bin; 0: one per begun cell
    ALIGNED: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_L: tl.constexpr,
):
    i_roi = tl.program_id(0).to(tl.int64)
    left = tl.load(boxes_ptr + 4 * i_roi)
    top = tl.load(boxes_ptr + 4 * i_roi + 1)
    right = tl.load(boxes_ptr + 4 * i_roi + 2)
    bottom = tl.load(boxes_ptr + 4 * i_roi + 3)
    # Of what is not finite, the difference from itself is NaN
    finite = (left - left) + (top - top) + (right - right) + (bottom - bottom) == 0.0
    good = finite & (right >= left) & (bottom >= top)
    p_down = down_ptr + i_roi * SIZE * height
    p_across = across_ptr + i_roi * SIZE * width
    _axis_weights(top, bottom, good, p_down, height, scale, SIZE, RATIO, ALIGNED, BLOCK_P, BLOCK_L)
    _axis_weights(left, right, good, p_across, width, scale, SIZE, RATIO, ALIGNED, BLOCK_P, BLOCK_L)


@triton.jit
def slot_mean_kernel(
    tokens_ptr,  # [B, SLOTS, values]
    maps_ptr,  # [B, values] fp32
    values,  # height * width * D
    SLOTS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    i_clip = tl.program_id(1).to(tl.int64)
    o_value = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)  # [BLOCK]
    m_value = o_value < values
    b_sum = tl.zeros([BLOCK], tl.float32)
    p_tokens = tokens_ptr + i_clip * SLOTS * values + o_value
    for i_slot in tl.static_range(SLOTS):
        b_sum += tl.load(p_tokens + i_slot * values, mask=m_value, other=0.0).to(tl.float32)
    tl.store(maps_ptr + i_clip * values + o_value, tl.div_rn(b_sum, SLOTS * 1.0), mask=m_value)


@triton.jit
def _reached(
    p_weights,  # [SIZE, length]
    length,
    SIZE: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_L: tl.constexpr,
):
    """The first cell that counts in any bin, and the one behind the last."""
    o_p = tl.arange(0, BLOCK_P)
    first, last = tl.cast(length, tl.int32), tl.cast(0, tl.int32)
    for o_start in range(0, length, BLOCK_L):
        o_cell = o_start + tl.arange(0, BLOCK_L)
        m_tile = (o_p < SIZE)[:, None] & (o_cell < length)[None, :]
        p_tile = p_weights + o_p[:, None] * length + o_cell[None, :]
        b_weight = tl.load(p_tile, mask=m_tile, other=0.0)
        cell = tl.broadcast_to(o_cell[None, :], [BLOCK_P, BLOCK_L])
        first = tl.minimum(first, tl.min(tl.min(tl.where(b_weight != 0.0, cell, length), 1), 0))
        last = tl.maximum(last, tl.max(tl.max(tl.where(b_weight != 0.0, cell + 1, 0), 1), 0))
    return first, last


@triton.jit
def roi_bins_kernel(
    maps_ptr,  # [B, height, width, DIM] fp32
    clip_ptr,  # [N] int64
    down_ptr,  # [N, SIZE, height] fp32
    across_ptr,  # [N, SIZE, width] fp32
    features_ptr,  # [N, DIM]
    best_ptr,  # [N, DIM] int32
    batch,
    height,
    width,
    DIM: tl.constexpr,
    SIZE: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_L: tl.constexpr,
    BLOCK_W: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    i_roi = tl.program_id(0).to(tl.int64)
    o_d = tl.program_id(1) * BLOCK_D + tl.arange(0, BLOCK_D)  # [BLOCK_D]
    m_d = o_d < DIM
    o_p = tl.arange(0, BLOCK_P)  # of bins, down and across
    clip = tl.load(clip_ptr + i_roi)
    known = (clip >= 0) & (clip < batch)
    p_down = down_ptr + i_roi * SIZE * height
    p_across = across_ptr + i_roi * SIZE * width
    first_row, last_row = _reached(p_down, height, SIZE, BLOCK_P, BLOCK_L)
    first_column, last_column = _reached(p_across, width, SIZE, BLOCK_P, BLOCK_L)
    last_row = tl.where(known, last_row, 0)  # of a clip that there is not, nothing is read
    p_map = maps_ptr + clip * height * width * DIM
    b_bins = tl.zeros([BLOCK_P, BLOCK_P, BLOCK_D], tl.float32)
    for i_row in range(first_row, last_row):
        b_down = tl.load(p_down + o_p * height + i_row, mask=o_p < SIZE, other=0.0)  # [BLOCK_P]
        b_line = tl.zeros([BLOCK_P, BLOCK_D], tl.float32)  # a row of the map, in the bins across it
        for o_start in range(first_column, last_column, BLOCK_W):
            o_w = o_start + tl.arange(0, BLOCK_W)  # [BLOCK_W]
            m_w = o_w < last_column
            p_tile = p_map + (i_row * width + o_w)[:, None] * DIM + o_d[None, :]
            b_map = tl.load(p_tile, mask=m_w[:, None] & m_d[None, :], other=0.0)
            m_across = (o_p < SIZE)[:, None] & m_w[None, :]
            p_weight = p_across + o_p[:, None] * width + o_w[None, :]
            b_across = tl.load(p_weight, mask=m_across, other=0.0)  # [BLOCK_P, BLOCK_W]
            b_line += tl.sum(b_across[:, :, None] * b_map[None, :, :], axis=1)
        b_bins += b_down[:, None, None] * b_line[None, :, :]
    # The largest, and of several equal the first; NaN is larger than all, as torch has it
    o_bin = o_p[:, None] * SIZE + o_p[None, :]
    real = (o_p < SIZE)[:, None] & (o_p < SIZE)[None, :]
    number = tl.where(real, o_bin, SIZE * SIZE)[:, :, None]  # [BLOCK_P, BLOCK_P, 1]
    wrong = (b_bins != b_bins) & real[:, :, None]
    b_clean = tl.where(wrong | (number >= SIZE * SIZE), float("-inf"), b_bins)
    largest = tl.max(tl.max(b_clean, 0), 0)  # [BLOCK_D]
    any_wrong = tl.max(tl.max(wrong.to(tl.int32), 0), 0) > 0
    among = tl.where(any_wrong[None, None, :], wrong, b_clean == largest[None, None, :])
    best = tl.min(tl.min(tl.where(among, number, SIZE * SIZE), 0), 0)
    largest = tl.where(any_wrong | (known == 0), float("nan"), largest)
    o_out = i_roi * DIM + o_d
    tl.store(features_ptr + o_out, largest.to(features_ptr.dtype.element_ty), mask=m_d)
    tl.store(best_ptr + o_out, best, mask=m_d)


@triton.jit
def roi_backward_kernel(
    grad_ptr,  # [N, DIM]
    best_ptr,  # [N, DIM] int32
    down_ptr,  # [N, SIZE, height] fp32
    across_ptr,  # [N, SIZE, width] fp32
    order_ptr,  # [N] int64, boxes by clip
    first_ptr,  # [B + 1] int32, where those of each clip start
    out_ptr,  # [B, slots, height, width, DIM]
    slots,
    height,
    width,
    DIM: tl.constexpr,
    SIZE: tl.constexpr,
    BLOCK_W: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    i_clip = (tl.program_id(0) // height).to(tl.int64)
    i_row = tl.program_id(0) % height
    o_w = tl.program_id(1) * BLOCK_W + tl.arange(0, BLOCK_W)  # [BLOCK_W]
    o_d = tl.program_id(2) * BLOCK_D + tl.arange(0, BLOCK_D)  # [BLOCK_D]
    m_d = o_d < DIM
    m_tile = (o_w < width)[:, None] & m_d[None, :]
    begin = tl.load(first_ptr + i_clip)
    end = tl.load(first_ptr + i_clip + 1)
    b_sum = tl.zeros([BLOCK_W, BLOCK_D], tl.float32)
    for i in range(begin, end):
        i_roi = tl.load(order_ptr + i)
        b_grad = tl.load(grad_ptr + i_roi * DIM + o_d, mask=m_d, other=0.0).to(tl.float32)
        best = tl.load(best_ptr + i_roi * DIM + o_d, mask=m_d, other=0)
        p_down = down_ptr + (i_roi * SIZE + best // SIZE) * height + i_row  # [BLOCK_D]
        p_across = across_ptr + ((i_roi * SIZE + best % SIZE) * width)[None, :] + o_w[:, None]
        b_down = tl.load(p_down, mask=m_d, other=0.0)
        b_across = tl.load(p_across, mask=m_tile, other=0.0)  # [BLOCK_W, BLOCK_D]
        b_sum += (b_grad * b_down)[None, :] * b_across
    b_out = tl.div_rn(b_sum, tl.cast(slots, tl.float32)).to(out_ptr.dtype.element_ty)
    o_cell = (i_row * width + o_w)[:, None] * DIM + o_d[None, :]
    p_out = out_ptr + i_clip * slots * height * width * DIM + o_cell
    for _ in range(slots):
        tl.store(p_out, b_out, mask=m_tile)
        p_out += tl.cast(height, tl.int64) * width * DIM


def forward(args: Arguments) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """As the reference in videomae_fast/ops/roi_features.py. What is not dense is copied first."""
    tokens, height, width, size = args.tokens, args.height, args.width, args.size
    (batch, _, dim), count = tokens.shape, len(args.boxes)
    features = torch.empty((count, dim), dtype=tokens.dtype, device=tokens.device)
    best = torch.empty((count, dim), dtype=torch.int32, device=tokens.device)
    down = torch.empty((count, size, height), dtype=torch.float32, device=tokens.device)
    across = torch.empty((count, size, width), dtype=torch.float32, device=tokens.device)
    if count == 0:
        return features, best, down, across
    maps = torch.empty((batch, height, width, dim), dtype=torch.float32, device=tokens.device)
    values = height * width * dim
    bins, line = _power(size), _power(max(height, width), 64)
    with torch.cuda.device_of(tokens):
        roi_weights_kernel[(count,)](
            args.boxes.contiguous(),
            down,
            across,
            height,
            width,
            args.scale,
            SIZE=size,
            RATIO=args.sampling_ratio,
            ALIGNED=args.aligned,
            BLOCK_P=bins,
            BLOCK_L=line,
            num_warps=1,
            enable_fp_fusion=False,  # a bin's size is rounded up to its number of samples
        )
        if maps.numel():
            slot_mean_kernel[(cdiv(values, LAUNCH.values), batch)](
                tokens.contiguous(),
                maps,
                values,
                SLOTS=args.slots,
                BLOCK=LAUNCH.values,
                num_warps=LAUNCH.num_warps,
            )
        if features.numel():
            block_d = _power(dim, max(1, LAUNCH.channels * 64 // bins**2))
            roi_bins_kernel[(count, cdiv(dim, block_d))](
                maps,
                args.clip.contiguous(),
                down,
                across,
                features,
                best,
                batch,
                height,
                width,
                DIM=dim,
                SIZE=size,
                BLOCK_P=bins,
                BLOCK_L=line,
                BLOCK_W=_power(width, LAUNCH.columns),
                BLOCK_D=block_d,
                num_warps=LAUNCH.num_warps,
            )
    return features, best, down, across


def backward(args: Arguments) -> Tensor:
    """The gradient of the tokens, [batch, slots * height * width, D] in the dtype of `grad`."""
    grad, clip, batch, slots = args.grad, args.clip, args.batch, args.slots
    (_, size, height), width, dim = args.down.shape, args.across.shape[2], grad.shape[1]
    shape = (batch, slots * height * width, dim)
    out = torch.empty(shape, dtype=grad.dtype, device=grad.device)
    if out.numel() == 0:
        return out
    of_clip, order = clip.sort(stable=True)
    every = torch.arange(batch + 1, dtype=torch.int64, device=clip.device)
    first = torch.searchsorted(of_clip, every, out_int32=True)
    block_w, block_d = _power(width, LAUNCH.columns), _power(dim, LAUNCH.channels_backward)
    grid = (batch * height, cdiv(width, block_w), cdiv(dim, block_d))
    with torch.cuda.device_of(grad):
        roi_backward_kernel[grid](
            grad.contiguous(),
            args.best.contiguous(),
            args.down.contiguous(),
            args.across.contiguous(),
            order,
            first,
            out,
            slots,
            height,
            width,
            DIM=dim,
            SIZE=size,
            BLOCK_W=block_w,
            BLOCK_D=block_d,
            num_warps=LAUNCH.num_warps,
        )
    return out


def _power(n: int, most: int = 1 << 30) -> int:
    """The next power of two, at most `most`, which is one."""
    return min(power_of_2(n), most)
