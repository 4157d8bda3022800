"""Bias and GELU (erf) whose result is written in e4m3 too, for an fp8 matmul.

A row's scale waits for its largest magnitude, so that a program holds whole rows, other than
kernels/bias_gelu.py, whose arithmetic this is; backward is the same. See
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
from videomae_fast.kernels.bias_gelu import _gelu
from videomae_fast.kernels.occupancy import assumed_registers, programs_at_once
from videomae_fast.kernels.quantize_rows import empty_quantized, store_quantized
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
        num_warps: of a program, which has one row of the official hidden widths.
        programs: per multiprocessor; None: as many as the compiled kernel's registers let in.
        lane_values: fp32 values that a lane may hold.
    """

    num_warps: int = 4
    programs: int | None = None
    lane_values: int = 192


LAUNCH = Launch()


def tiling(width: int, itemsize: int) -> Tiling:
    """Of the kernel, which holds the bias in fp32, and of a row what is loaded and what is made."""
    return row_tiling(width, itemsize, 3, LAUNCH.num_warps, LAUNCH.lane_values)


@triton.jit
def _forward(
    x_ptr,  # [n_rows, WIDTH], rows x_stride apart
    bias_ptr,  # [WIDTH]
    out_ptr,  # [n_rows, WIDTH]
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
    b_bias = ()
    for c in tl.static_range(CHUNKS):
        b_bias = b_bias + (load_vector(bias_ptr, c, WIDTH, ROWS, CHUNK),)  # noqa: RUF005
    i_start = tl.program_id(0) * n_run
    i_end = tl.minimum(i_start + n_run, n_rows)
    for i_tile in range(i_start, i_end, ROWS):
        i_row = i_tile + tl.arange(0, ROWS)
        m_row = i_row < i_end
        o_row = i_row.to(tl.int64)
        b_x = load_rows(x_ptr, o_row * x_stride, m_row, WIDTH, CHUNK, CHUNKS)
        b_outs = ()
        for c in tl.static_range(CHUNKS):
            b_out = _gelu(b_x[c].to(tl.float32) + b_bias[c]).to(out_ptr.dtype.element_ty)
            store_chunk(out_ptr, o_row * WIDTH, m_row, b_out, c, WIDTH, CHUNK)
            b_outs = b_outs + (b_out,)  # noqa: RUF005
        store_quantized(values_ptr, scale_ptr, i_row, m_row, b_outs, WIDTH, ROWS, CHUNK, CHUNKS)


def forward(args: Arguments) -> tuple[Tensor, Tensor, Tensor]:
    """gelu(x + bias), the same in e4m3, [..., D], and its rows' scales, fp32 [...]."""
    x = args.x
    out = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    values, scale = empty_quantized(x)
    if x.numel() == 0:
        return out, values, scale
    x_rows = as_rows(x)
    rows, width = x_rows.shape
    cut = tiling(width, x.element_size())
    tensors = (x_rows, args.bias.contiguous(), out, values, scale)
    constants = cut.constants(width)
    with torch.cuda.device_of(x):
        most = programs_at_once(
            _forward,
            (*tensors, rows, cut.rows, x_rows.stride(0)),
            constants,
            cut.warps,
            x.device,
            assumed_registers("bias_gelu_fp8", width),
            LAUNCH.programs,
        )
        programs, run = row_runs(rows, cut, most)
        _forward[(programs,)](
            *tensors, rows, run, x_rows.stride(0), **constants, num_warps=cut.warps
        )
    return out, values, scale
