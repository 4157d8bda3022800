"""Training views from uint8: RandAugment's operations, crop, resize, flip and hole, of a batch.

Operations that change a level whatever its place become a table of 256 levels for each channel of
each frame, which the next reader of pixels looks levels up in: they pass over no pixels. Statistics
are counted through the tables. What moves or mixes pixels (affine maps, colour, sharpness) is made
where the next operation, or the crop, reads it. The k-th operations of all views are done together:
one launch for what is counted, one for tables, one for each way of making pixels; then one launch
makes all views. Levels are the reference's bytes, so nothing is fused that it rounds in between.

Lanes run over the bytes of rows: loads and stores of a warp are one run, or near it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from videomae_fast.kernels.augment_jobs import Plan, Step
from videomae_fast.kernels.host import cdiv

# Kinds of operations, as ops/augment_plan.py numbers them
_AUTO_CONTRAST = tl.constexpr(0)
_EQUALIZE = tl.constexpr(1)
_INVERT = tl.constexpr(2)
_POSTERIZE = tl.constexpr(3)
_SOLARIZE = tl.constexpr(4)
_SOLARIZE_ADD = tl.constexpr(5)
_COLOR = tl.constexpr(6)
_CONTRAST = tl.constexpr(7)
_BRIGHTNESS = tl.constexpr(8)
_SHARPNESS = tl.constexpr(9)

_FIELDS = tl.constexpr(17)  # of a job, see augment_jobs.py
_NUMBERS = tl.constexpr(8)  # of an operation: kind, argument, matrix
_TABLE = tl.constexpr(768)  # bytes of a frame's tables
_FILL = tl.constexpr(128)


@dataclass(frozen=True)
class Launch:
    """Launch choices; modelled, not yet measured on a GPU.

    Attributes:
        pixels, block: that a program counts, and how many of them at once.
        rows, bytes: of a tile of pixels that are made.
        affine_rows: the same of affine operations, whose sums are fp64: 4 rows take 138 registers.
        num_warps: of a program that makes pixels.
    """

    pixels: int = 4096
    block: int = 1024
    rows: int = 4
    bytes: int = 128
    affine_rows: int = 2
    num_warps: int = 4


LAUNCH = Launch()


@triton.jit
def _level(p_source, p_table, o_table, through, mask):
    """int32 levels at addresses, through the tables of their channels where there are some."""
    b_level = tl.load(p_source, mask=mask, other=0).to(tl.int32)
    if through != 0:
        b_level = tl.load(p_table + o_table + b_level, mask=mask, other=0).to(tl.int32)
    return b_level


@triton.jit
def _source(p_job, frame):
    """Address of pixel 0 of a frame, and its bytes from row to row."""
    p_source = tl.load(p_job + 2).to(tl.pointer_type(tl.uint8))
    return p_source + frame * tl.load(p_job + 3), tl.load(p_job + 4)


@triton.jit
def _target(p_job, frame):
    p_target = tl.load(p_job + 5).to(tl.pointer_type(tl.uint8))
    return p_target + frame * tl.load(p_job + 6), tl.load(p_job + 7)


@triton.jit
def _grey(b_red, b_green, b_blue):
    """ITU-R 601 luma in 16-bit fixed point."""
    return (19595 * b_red + 38470 * b_green + 7471 * b_blue + 32768) >> 16


@triton.jit
def _blend(b_ground, b_level, factor):
    """ground + factor * (level - ground) of fp32 values, cut off at 0 and 255, truncated."""
    b_exact = b_ground + factor * (b_level - b_ground)
    return tl.minimum(tl.maximum(b_exact, 0.0), 255.0).to(tl.int32)


@triton.jit
def count_kernel(
    jobs_ptr,  # [J, _FIELDS] int64
    numbers_ptr,  # [N, _NUMBERS] fp64
    tables_ptr,  # [V, T, 3, 256] uint8
    counts_ptr,  # [V, T, 3, 256] int32, zero
    greys_ptr,  # [V, T] int64, zero: sums of greys
    frames,  # T
    PIXELS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    i_job, frame = tl.program_id(0) // frames, tl.program_id(0) % frames
    p_job = jobs_ptr + i_job * _FIELDS
    i_frame = tl.load(p_job) * frames + frame
    through = tl.load(p_job + 1)
    p_frame, row_stride = _source(p_job, frame)
    p_table = tables_ptr + i_frame * _TABLE
    width = tl.load(p_job + 9).to(tl.int32)
    pixels = tl.load(p_job + 8).to(tl.int32) * width
    kind = tl.load(numbers_ptr + tl.load(p_job + 14) * _NUMBERS).to(tl.int32)
    o_level = tl.arange(0, 256)
    p_counts = counts_ptr + i_frame * _TABLE + o_level
    for begin in range(0, PIXELS, BLOCK):
        o_pixel = tl.program_id(1) * PIXELS + begin + tl.arange(0, BLOCK)  # [BLOCK]
        m_pixel = o_pixel < pixels
        row = o_pixel // width
        p_pixel = p_frame + row * row_stride + (o_pixel - row * width) * 3
        b_red = _level(p_pixel, p_table, 0, through, m_pixel)
        b_green = _level(p_pixel + 1, p_table, 256, through, m_pixel)
        b_blue = _level(p_pixel + 2, p_table, 512, through, m_pixel)
        if kind == _CONTRAST:
            b_grey = tl.where(m_pixel, _grey(b_red, b_green, b_blue), 0)
            tl.atomic_add(greys_ptr + i_frame, tl.sum(b_grey, 0).to(tl.int64))
        else:
            tl.atomic_add(p_counts, tl.histogram(b_red, 256, mask=m_pixel))
            tl.atomic_add(p_counts + 256, tl.histogram(b_green, 256, mask=m_pixel))
            tl.atomic_add(p_counts + 512, tl.histogram(b_blue, 256, mask=m_pixel))


@triton.jit
def table_kernel(
    jobs_ptr,  # [J, _FIELDS] int64
    numbers_ptr,  # [N, _NUMBERS] fp64
    tables_ptr,  # [V, T, 3, 256] uint8, read where there are some, and written
    counts_ptr,  # [V, T, 3, 256] int32
    greys_ptr,  # [V, T] int64
    frames,  # T
):
    channel, i_each = tl.program_id(0) % 3, tl.program_id(0) // 3
    i_job, frame = i_each // frames, i_each % frames
    p_job = jobs_ptr + i_job * _FIELDS
    i_frame = tl.load(p_job) * frames + frame
    p_numbers = numbers_ptr + tl.load(p_job + 14) * _NUMBERS
    kind = tl.load(p_numbers).to(tl.int32)
    argument = tl.load(p_numbers + 1)
    o_level = tl.arange(0, 256)
    p_table = tables_ptr + i_frame * _TABLE + channel * 256 + o_level
    b_level = o_level  # [256]: what each byte is by now
    if tl.load(p_job + 1) != 0:
        b_level = tl.load(p_table).to(tl.int32)
    pixels = tl.load(p_job + 8) * tl.load(p_job + 9)
    b_next = b_level
    if (kind == _AUTO_CONTRAST) | (kind == _EQUALIZE):
        b_count = tl.load(counts_ptr + i_frame * _TABLE + channel * 256 + o_level)  # [256]
        highest = tl.max(tl.where(b_count > 0, o_level, 0), 0)
        if kind == _AUTO_CONTRAST:
            lowest = tl.min(tl.where(b_count > 0, o_level, 255), 0)
            # A flat channel stays; its divisor is not 0 then
            scale = tl.full([1], 255.0, tl.float64) / tl.maximum(highest - lowest, 1).to(tl.float64)
            b_exact = b_level.to(tl.float64) * scale - lowest.to(tl.float64) * scale
            b_exact = tl.minimum(tl.maximum(b_exact, 0.0), 255.0)
            b_next = tl.where(highest > lowest, b_exact.to(tl.int32), b_level)
        else:
            most = tl.sum(tl.where(o_level == highest, b_count, 0), 0)
            step = (pixels.to(tl.int32) - most) // 255
            present = tl.sum((b_count > 0).to(tl.int32), 0)
            b_below = tl.cumsum(b_count, 0) - b_count
            b_even = (step // 2 + tl.gather(b_below, b_level, 0)) // tl.maximum(step, 1)
            b_next = tl.where((present > 1) & (step > 0), tl.minimum(b_even, 255), b_level)
    elif (kind == _CONTRAST) | (kind == _BRIGHTNESS):
        ground = tl.full([1], 0.0, tl.float32)
        if kind == _CONTRAST:
            mean = tl.load(greys_ptr + i_frame).to(tl.float64) / pixels.to(tl.float64)
            ground += tl.floor(mean + 0.5).to(tl.float32)
        b_next = _blend(ground, b_level.to(tl.float32), argument.to(tl.float32))
    elif kind == _INVERT:
        b_next = 255 - b_level
    elif kind == _POSTERIZE:
        b_next = b_level & (0xFF00 >> argument.to(tl.int32))
    elif kind == _SOLARIZE:
        b_next = tl.where(b_level < argument.to(tl.int32), b_level, 255 - b_level)
    elif kind == _SOLARIZE_ADD:
        b_more = tl.minimum(tl.maximum(b_level + argument.to(tl.int32), 0), 255)
        b_next = tl.where(b_level < 128, b_more, b_level)
    tl.store(p_table, b_next.to(tl.uint8))


@triton.jit
def _tile(p_job, i_row, i_byte, ROWS: tl.constexpr, BYTES: tl.constexpr):
    """Rows and bytes of a tile in their frame, and which of them are to be made."""
    o_row = i_row * ROWS + tl.arange(0, ROWS)  # [ROWS]
    o_byte = i_byte * BYTES + tl.arange(0, BYTES)  # [BYTES]
    m_row = o_row < tl.load(p_job + 12).to(tl.int32)
    m_byte = o_byte < 3 * tl.load(p_job + 13).to(tl.int32)
    o_row += tl.load(p_job + 10).to(tl.int32)
    o_byte += 3 * tl.load(p_job + 11).to(tl.int32)
    return o_row[:, None], o_byte[None, :], m_row[:, None] & m_byte[None, :]


@triton.jit
def blend_kernel(
    jobs_ptr,  # [J, _FIELDS] int64
    numbers_ptr,  # [N, _NUMBERS] fp64
    tables_ptr,  # [V, T, 3, 256] uint8
    frames,  # T
    ROWS: tl.constexpr,
    BYTES: tl.constexpr,
):
    i_job, frame = tl.program_id(0) // frames, tl.program_id(0) % frames
    p_job = jobs_ptr + i_job * _FIELDS
    p_source, source_row = _source(p_job, frame)
    p_target, target_row = _target(p_job, frame)
    through = tl.load(p_job + 1)
    p_table = tables_ptr + (tl.load(p_job) * frames + frame) * _TABLE
    p_numbers = numbers_ptr + tl.load(p_job + 14) * _NUMBERS
    o_row, o_byte, m_tile = _tile(p_job, tl.program_id(1), tl.program_id(2), ROWS, BYTES)
    channel = o_byte % 3
    o_table = channel * 256
    p_here = p_source + o_row * source_row + o_byte  # [ROWS, BYTES]
    b_here = _level(p_here, p_table, o_table, through, m_tile)
    if tl.load(p_numbers).to(tl.int32) == _COLOR:
        p_pixel = p_here - channel
        b_red = _level(p_pixel, p_table, 0, through, m_tile)
        b_green = _level(p_pixel + 1, p_table, 256, through, m_tile)
        b_blue = _level(p_pixel + 2, p_table, 512, through, m_tile)
        b_ground = _grey(b_red, b_green, b_blue)
    else:  # the mean of 3 x 3 pixels whose middle counts 5 times; at the edges the pixel itself
        height, width = tl.load(p_job + 8).to(tl.int32), tl.load(p_job + 9).to(tl.int32)
        m_row = (o_row > 0) & (o_row < height - 1)
        m_inner = m_tile & m_row & (o_byte >= 3) & (o_byte < 3 * (width - 1))
        b_sum = 4 * b_here
        for i in tl.static_range(9):
            p_near = p_here + (i // 3 - 1) * source_row + (i % 3 - 1) * 3
            b_sum += _level(p_near, p_table, o_table, through, m_inner)
        b_ground = tl.where(m_inner, (2 * b_sum + 13) // 26, b_here)
    factor = tl.load(p_numbers + 1).to(tl.float32)
    b_out = _blend(b_ground.to(tl.float32), b_here.to(tl.float32), factor)
    tl.store(p_target + o_row * target_row + o_byte, b_out.to(tl.uint8), mask=m_tile)


@triton.jit
def _cubic(b_before, b_here, b_there, b_behind, b_share):
    b_p = b_there - b_before
    b_q = 2 * (b_before - b_here) + b_there - b_behind
    b_r = b_here - b_before + b_behind - b_there
    return b_here + b_share * (b_p + b_share * (b_q + b_share * b_r))


@triton.jit
def _cubic_across(p_row, o_first, b_share, width, p_table, o_table, channel, through, mask):
    """A row's levels at places `b_share` behind the pixels before them, fp64."""
    o_0 = tl.minimum(tl.maximum(o_first - 1, 0), width - 1) * 3 + channel
    o_1 = tl.minimum(tl.maximum(o_first, 0), width - 1) * 3 + channel
    o_2 = tl.minimum(tl.maximum(o_first + 1, 0), width - 1) * 3 + channel
    o_3 = tl.minimum(tl.maximum(o_first + 2, 0), width - 1) * 3 + channel
    return _cubic(
        _level(p_row + o_0, p_table, o_table, through, mask).to(tl.float64),
        _level(p_row + o_1, p_table, o_table, through, mask).to(tl.float64),
        _level(p_row + o_2, p_table, o_table, through, mask).to(tl.float64),
        _level(p_row + o_3, p_table, o_table, through, mask).to(tl.float64),
        b_share,
    )


@triton.jit
def affine_kernel(
    jobs_ptr,  # [J, _FIELDS] int64
    numbers_ptr,  # [N, _NUMBERS] fp64
    tables_ptr,  # [V, T, 3, 256] uint8
    frames,  # T
    ROWS: tl.constexpr,
    BYTES: tl.constexpr,
):
    i_job, frame = tl.program_id(0) // frames, tl.program_id(0) % frames
    p_job = jobs_ptr + i_job * _FIELDS
    p_source, source_row = _source(p_job, frame)
    p_target, target_row = _target(p_job, frame)
    through = tl.load(p_job + 1)
    p_table = tables_ptr + (tl.load(p_job) * frames + frame) * _TABLE
    p_matrix = numbers_ptr + tl.load(p_job + 14) * _NUMBERS + 2
    height, width = tl.load(p_job + 8).to(tl.int32), tl.load(p_job + 9).to(tl.int32)
    o_row, o_byte, m_tile = _tile(p_job, tl.program_id(1), tl.program_id(2), ROWS, BYTES)
    channel = o_byte % 3
    o_table = channel * 256
    b_x = (o_byte // 3).to(tl.float64) + 0.5
    b_y = o_row.to(tl.float64) + 0.5
    b_at_x = tl.load(p_matrix) * b_x + tl.load(p_matrix + 1) * b_y + tl.load(p_matrix + 2)
    b_at_y = tl.load(p_matrix + 3) * b_x + tl.load(p_matrix + 4) * b_y + tl.load(p_matrix + 5)
    m_inside = (b_at_x >= 0) & (b_at_x < width.to(tl.float64))
    m_inside &= (b_at_y >= 0) & (b_at_y < height.to(tl.float64))
    # Places outside are not read: they may lie far away
    b_at_x = tl.where(m_inside, b_at_x, 0.5) - 0.5
    b_at_y = tl.where(m_inside, b_at_y, 0.5) - 0.5
    b_column, b_line = tl.floor(b_at_x), tl.floor(b_at_y)
    b_across, b_down = b_at_x - b_column, b_at_y - b_line
    o_column, o_line = b_column.to(tl.int32), b_line.to(tl.int32)
    m_read = m_tile & m_inside
    p_0 = p_source + tl.minimum(tl.maximum(o_line - 1, 0), height - 1) * source_row
    p_1 = p_source + tl.minimum(tl.maximum(o_line, 0), height - 1) * source_row
    p_2 = p_source + tl.minimum(tl.maximum(o_line + 1, 0), height - 1) * source_row
    p_3 = p_source + tl.minimum(tl.maximum(o_line + 2, 0), height - 1) * source_row
    b_exact = _cubic(
        _cubic_across(p_0, o_column, b_across, width, p_table, o_table, channel, through, m_read),
        _cubic_across(p_1, o_column, b_across, width, p_table, o_table, channel, through, m_read),
        _cubic_across(p_2, o_column, b_across, width, p_table, o_table, channel, through, m_read),
        _cubic_across(p_3, o_column, b_across, width, p_table, o_table, channel, through, m_read),
        b_down,
    )
    b_out = tl.minimum(tl.maximum(b_exact, 0.0), 255.0).to(tl.int32)
    b_out = tl.where(m_inside, b_out, _FILL)
    tl.store(p_target + o_row * target_row + o_byte, b_out.to(tl.uint8), mask=m_tile)


@triton.jit
def _neighbours(o_out, length, size):
    """The two pixels of `length` that an output pixel of `size` joins, and the second's share."""
    # A place that is off by a rounding is off by more than the result may be
    scale = tl.div_rn(length.to(tl.float32), tl.full([1, 1], 0.0, tl.float32) + size)
    b_at = tl.maximum(scale * (o_out.to(tl.float32) + 0.5) - 0.5, 0.0)
    o_first = tl.minimum(b_at.to(tl.int32), length - 1)
    b_share = tl.minimum(tl.maximum(b_at - o_first.to(tl.float32), 0.0), 1.0)
    return o_first, tl.minimum(o_first + 1, length - 1), b_share


@triton.jit
def view_kernel(
    jobs_ptr,  # [V, _FIELDS] int64
    holes_ptr,  # [V, 4] int64: top, left, height, width
    tables_ptr,  # [V, T, 3, 256] uint8
    statistics_ptr,  # [2, 3] fp32: mean, std
    out_ptr,  # [V, T, height, width, 3] fp32
    frames,  # T
    height,
    width,
    ROWS: tl.constexpr,
    BYTES: tl.constexpr,
):
    i_view, frame = tl.program_id(0) // frames, tl.program_id(0) % frames
    p_job = jobs_ptr + i_view * _FIELDS
    p_source, source_row = _source(p_job, frame)
    through = tl.load(p_job + 1)
    i_frame = tl.program_id(0).to(tl.int64)
    p_table = tables_ptr + i_frame * _TABLE
    o_row = (tl.program_id(1) * ROWS + tl.arange(0, ROWS))[:, None]  # [ROWS, 1]
    o_value = (tl.program_id(2) * BYTES + tl.arange(0, BYTES))[None, :]  # [1, BYTES]
    m_tile = (o_row < height) & (o_value < 3 * width)
    channel, o_column = o_value % 3, o_value // 3
    o_table = channel * 256
    flip = tl.load(p_job + 15).to(tl.int32)
    o_read = o_column + flip * (width - 1 - 2 * o_column)
    crop_height, crop_width = tl.load(p_job + 12).to(tl.int32), tl.load(p_job + 13).to(tl.int32)
    o_left, o_right, b_across = _neighbours(o_read, crop_width, width)
    o_above, o_below, b_down = _neighbours(o_row, crop_height, height)
    p_corner = p_source + tl.load(p_job + 10) * source_row + tl.load(p_job + 11) * 3 + channel
    p_above, p_below = p_corner + o_above * source_row, p_corner + o_below * source_row
    b_above_left = _level(p_above + 3 * o_left, p_table, o_table, through, m_tile)
    b_above_right = _level(p_above + 3 * o_right, p_table, o_table, through, m_tile)
    b_below_left = _level(p_below + 3 * o_left, p_table, o_table, through, m_tile)
    b_below_right = _level(p_below + 3 * o_right, p_table, o_table, through, m_tile)
    b_above = b_above_left * (1 - b_across) + b_above_right * b_across
    b_below = b_below_left * (1 - b_across) + b_below_right * b_across
    b_value = (b_above * (1 - b_down) + b_below * b_down) / 255
    b_value = (b_value - tl.load(statistics_ptr + channel)) / tl.load(statistics_ptr + 3 + channel)

    p_hole = holes_ptr + i_view * 4
    hole_rows = tl.load(p_hole + 2).to(tl.int32)
    if hole_rows > 0:
        top, left = tl.load(p_hole).to(tl.int32), tl.load(p_hole + 1).to(tl.int32)
        m_hole = (o_row >= top) & (o_row < top + hole_rows)
        m_hole &= (o_column >= left) & (o_column < left + tl.load(p_hole + 3).to(tl.int32))
        o_noise = (frame * height + o_row) * (3 * width) + o_value
        b_value = tl.where(m_hole, tl.randn(tl.load(p_job + 16), o_noise), b_value)
    p_out = out_ptr + (i_frame * height + o_row) * (3 * width) + o_value
    tl.store(p_out, b_value, mask=m_tile)


def augmented_views(
    clips: Sequence[Tensor],
    views: Tensor,
    operations: Tensor,
    mean: Sequence[float],
    std: Sequence[float],
    out: Tensor,
) -> None:
    """Fills `out`, fp32 [V, T, height, width, 3], with the views of a plan.

    Args:
        clips: uint8 [T, H, W, 3], with the pixels of a row side by side.
        views: int64 [V, 13] on the CPU, as ops/augmented_views.py lays it out.
        operations: fp64 [N, 12] on the CPU, rows of ops/augment_plan.py.
        mean, std: of the three channels.
        out: contiguous.
    """
    if out.numel() == 0:
        return
    plan = Plan(clips, views, operations)
    count, frames, height, width, _ = out.shape
    device = out.device
    with torch.cuda.device_of(out):
        jobs, holes = _sent(plan.jobs, device), _sent(plan.holes, device)
        numbers = _sent(operations[:, : _NUMBERS.value].contiguous(), device)
        statistics = _sent(torch.tensor([list(mean), list(std)], dtype=torch.float32), device)
        tables = torch.empty((count, frames, 3, 256), dtype=torch.uint8, device=device)
        for step in plan.steps:
            _make(step, jobs, numbers, tables, frames)
        view_kernel[_grid(frames, count, height, width, LAUNCH.rows)](
            jobs[plan.views :],
            holes,
            tables,
            statistics,
            out,
            frames,
            height,
            width,
            ROWS=LAUNCH.rows,
            BYTES=LAUNCH.bytes,
            num_warps=LAUNCH.num_warps,
            enable_fp_fusion=False,
        )


def _make(step: Step, jobs: Tensor, numbers: Tensor, tables: Tensor, frames: int) -> None:
    """One operation of each view that has another one."""
    device = tables.device
    some = tables.shape if step.count else (0,)
    counts = torch.zeros(some, dtype=torch.int32, device=device)
    greys = torch.zeros(some[:2], dtype=torch.int64, device=device)
    if part := step.count:
        grid = (part.jobs * frames, cdiv(part.rows * part.columns, LAUNCH.pixels))
        count_kernel[grid](
            jobs[part.first :], numbers, tables, counts, greys, frames,
            PIXELS=LAUNCH.pixels, BLOCK=LAUNCH.block, num_warps=LAUNCH.num_warps,
        )  # fmt: skip
    if part := step.table:
        table_kernel[(part.jobs * frames * 3,)](
            jobs[part.first :], numbers, tables, counts, greys, frames,
            num_warps=LAUNCH.num_warps, enable_fp_fusion=False,
        )  # fmt: skip
    for part, kernel, tile in (
        (step.blend, blend_kernel, LAUNCH.rows),
        (step.affine, affine_kernel, LAUNCH.affine_rows),
    ):
        if part:
            kernel[_grid(frames, part.jobs, part.rows, part.columns, tile)](
                jobs[part.first :], numbers, tables, frames,
                ROWS=tile, BYTES=LAUNCH.bytes, num_warps=LAUNCH.num_warps,
                enable_fp_fusion=False,
            )  # fmt: skip


def _grid(frames: int, count: int, rows: int, columns: int, tile: int) -> tuple[int, int, int]:
    return count * frames, cdiv(rows, tile), cdiv(3 * columns, LAUNCH.bytes)


def _sent(tensor: Tensor, device: torch.device) -> Tensor:
    """The tensor on the device; from page-locked memory, so that nothing waits."""
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)
