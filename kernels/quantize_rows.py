"""Rows in e4m3, each with a scale of its own: for fp8 matmuls.

A row's scale is a power of two, found and inverted in the bits of its largest magnitude: the
quotients are exact but for e4m3's own rounding, none is beyond its largest value, 448, and no
division is needed. A row with a value that is not finite has the scale NaN and so only NaN. See
docs/kernels/fp8_linear.md.
"""

# Tuples of blocks grow in the kernels: a name changes its type.
# mypy: disable-error-code="assignment"

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from videomae_fast.arguments import Arguments
from videomae_fast.kernels.occupancy import assumed_registers, programs_at_once
from videomae_fast.kernels.rows import (
    Tiling,
    as_rows,
    load_rows,
    load_vector,
    row_runs,
    row_tiling,
    store_chunk,
)


@dataclass(frozen=True)
class Launch:
    """How the kernel is launched; not timed yet.

    Attributes:
        num_warps: of a program, more where a row needs more.
        programs: per multiprocessor; None: as many as the compiled kernel's registers let in.
        lane_values: fp32 values that a lane may hold: a row stays in registers between its
            largest magnitude and its quotients.
    """

    num_warps: int = 4
    programs: int | None = None
    lane_values: int = 96


LAUNCH = Launch()


def tiling(width: int, itemsize: int) -> Tiling:
    """Of the kernel, which holds what it loaded, and at times one more value of each."""
    return row_tiling(width, itemsize, 2, LAUNCH.num_warps, LAUNCH.lane_values)


def empty_quantized(x: Tensor) -> tuple[Tensor, Tensor]:
    """Room for the rows of x [..., D] in e4m3, and for their scales, fp32 [...]."""
    return (
        torch.empty(x.shape, dtype=torch.float8_e4m3fn, device=x.device),
        torch.empty(x.shape[:-1], dtype=torch.float32, device=x.device),
    )


@triton.jit
def _row_scales(b_bits):
    """Scales and their inverses, fp32 [ROWS], of the bits of rows' largest magnitudes, int32.

    The scale is the least power of two by which the magnitude is at most 448 = 1.75 · 2⁸: what is
    added carries into the exponent where the mantissa is above 1.75. Magnitudes below 2⁻¹⁰⁰ count
    as that, so that both scales are normal numbers. NaN's bits are above infinity's.
    """
    b_exponent = ((tl.maximum(b_bits, 27 << 23) + 0x1FFFFF) & 0x7F800000) - (8 << 23)
    b_scale = b_exponent.to(tl.float32, bitcast=True)
    b_inverse = ((254 << 23) - b_exponent).to(tl.float32, bitcast=True)
    m_finite = b_bits < 0x7F800000
    return tl.where(m_finite, b_scale, float("nan")), tl.where(m_finite, b_inverse, float("nan"))


@triton.jit
def store_quantized(
    values_ptr,  # [n_rows, WIDTH], e4m3
    scale_ptr,  # [n_rows], fp32
    i_row,
    m_row,
    b_rows,  # chunks [ROWS, CHUNK] of whole rows, 0 beyond WIDTH
    WIDTH: tl.constexpr,
    ROWS: tl.constexpr,
    CHUNK: tl.constexpr,
    CHUNKS: tl.constexpr,
):
    """Stores rows in e4m3 and their scales."""
    b_most = tl.zeros([ROWS, CHUNK], tl.int32)
    for c in tl.static_range(CHUNKS):
        b_bits = b_rows[c].to(tl.float32).to(tl.int32, bitcast=True)
        b_most = tl.maximum(b_most, b_bits & 0x7FFFFFFF)
    b_scale, b_inverse = _row_scales(tl.max(b_most, 1))
    o_row = i_row.to(tl.int64) * WIDTH
    for c in tl.static_range(CHUNKS):
        b_values = b_rows[c].to(tl.float32) * b_inverse[:, None]
        store_chunk(values_ptr, o_row, m_row, b_values, c, WIDTH, CHUNK)
    tl.store(scale_ptr + i_row, b_scale, mask=m_row)


@triton.jit
def _quantize(
    x_ptr,  # [n_rows, WIDTH], rows x_stride apart
    factor_ptr,  # [WIDTH], fp32, or None
    values_ptr,  # [n_rows, WIDTH], e4m3
    scale_ptr,  # [n_rows], fp32
    n_rows,
    n_run,  # rows of a program
    x_stride,
    WIDTH: tl.constexpr,
    ROWS: tl.constexpr,
    CHUNK: tl.constexpr,
    CHUNKS: tl.constexpr,
):
    i_start = tl.program_id(0) * n_run
    i_end = tl.minimum(i_start + n_run, n_rows)
    for i_tile in range(i_start, i_end, ROWS):
        i_row = i_tile + tl.arange(0, ROWS)
        m_row = i_row < i_end
        o_row = i_row.to(tl.int64) * x_stride
        b_rows = load_rows(x_ptr, o_row, m_row, WIDTH, CHUNK, CHUNKS)
        if factor_ptr is not None:
            b_products = ()
            for c in tl.static_range(CHUNKS):
                b_factor = load_vector(factor_ptr, c, WIDTH, ROWS, CHUNK)
                b_products = b_products + (b_rows[c].to(tl.float32) * b_factor,)  # noqa: RUF005
            b_rows = b_products
        store_quantized(values_ptr, scale_ptr, i_row, m_row, b_rows, WIDTH, ROWS, CHUNK, CHUNKS)


def forward(args: Arguments) -> tuple[Tensor, Tensor]:
    """Rows in e4m3 [..., D] and their scales, fp32 [...]; see ops/quantize_rows.py."""
    x, factor = args.x, args.factor
    values, scale = empty_quantized(x)
    if x.numel() == 0:
        return values, scale
    x_rows = as_rows(x)
    rows, width = x_rows.shape
    cut = tiling(width, x.element_size())
    tensors = (x_rows, None if factor is None else factor.contiguous(), values, scale)
    constants = cut.constants(width)
    with torch.cuda.device_of(x):
        most = programs_at_once(
            _quantize,
            (*tensors, rows, cut.rows, x_rows.stride(0)),
            constants,
            cut.warps,
            x.device,
            assumed_registers("quantize_rows", width),
            LAUNCH.programs,
        )
        programs, run = row_runs(rows, cut, most)
        _quantize[(programs,)](
            *tensors, rows, run, x_rows.stride(0), **constants, num_warps=cut.warps
        )
    return values, scale
