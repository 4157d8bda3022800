"""Bias and GELU (erf), forward and backward, in one pass each.

Both want the normal distribution function, and backward its density too. One exponential and a
polynomial give both (see `_tail`), so that arithmetic stays below what the memory traffic leaves
time for. See docs/kernels/bias_gelu.md.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from videomae_fast.arguments import Arguments
from videomae_fast.kernels.columns import sum_columns
from videomae_fast.kernels.host import cdiv, power_of_2
from videomae_fast.kernels.occupancy import assumed_registers, programs_at_once
from videomae_fast.kernels.rows import as_rows


@dataclass(frozen=True)
class Launch:
    """How the kernels are launched; timed on an H100 (docs/performance-log.md).

    Each program takes a block of columns and walks over a run of rows.

    Attributes:
        columns: of a tile: a warp reads 512 bytes of a row in 16-bit types, 16 per lane.
        rows: of a forward tile: 32 values per lane, so that loads are in flight while others are
            computed.
        backward_rows: fewer, as backward holds two inputs and the sums of its columns.
        programs: per multiprocessor; None: as many as the compiled kernel's registers let in. In
            backward partial sums are then below 1 % of the bytes.
        stages: of forward's loop; from 2 on the loads of a tile are copied into shared memory
            while `stages` - 1 tiles before it are computed.
        backward_stages: of backward's loop.
    """

    num_warps: int = 4
    columns: int = 256
    rows: int = 16
    backward_rows: int = 16
    programs: int | None = None
    stages: int = 1
    backward_stages: int = 3


LAUNCH = Launch()


@triton.jit
def _tail(b_z):
    """(exp(-z²/2), t, P) with ``exp(-z²/2) t P``, the normal distribution function at -|z|.

    ``t = 1 / (1 + 0.305 |z|)``. P is a polynomial in t, fitted by iteratively reweighted least
    squares for the least relative error (1.1e-7, |z| <= 13); unlike ``1 + erf(z)`` it cancels
    nothing.

    The reciprocal is a root of a square, two instructions of the GPU, of which division takes six
    to be right for numbers that do not occur here. CUDA gives two units in the last place for
    either.
    """
    b_exp = tl.exp2(b_z * b_z * -0.7213475204444817)  # log2(e) / 2
    b_u = 1.0 + 0.305 * tl.abs(b_z)
    b_t = tl.rsqrt(b_u * b_u)
    b_poly = 0.036758190 * b_t - 0.153237441
    b_poly = b_poly * b_t + 0.186152092
    b_poly = b_poly * b_t - 0.038382859
    b_poly = b_poly * b_t + 0.121239232
    b_poly = b_poly * b_t + 0.103354234
    b_poly = b_poly * b_t + 0.122477569
    b_poly = b_poly * b_t + 0.121639030
    return b_exp, b_t, b_poly


@triton.jit
def _gelu(b_z):
    """z times the distribution function: a tail, or 1 minus the tail."""
    b_exp, b_t, b_poly = _tail(b_z)
    b_tail = b_exp * b_t * b_poly
    return b_z * tl.where(b_z > 0.0, 1.0 - b_tail, b_tail)


@triton.jit
def _slope(b_z):
    """The derivative, distribution function plus z times density; that at -z is 1 minus it."""
    b_exp, b_t, b_poly = _tail(b_z)
    b_lower = b_exp * (b_t * b_poly - 0.3989422804014327 * tl.abs(b_z))
    return tl.where(b_z > 0.0, 1.0 - b_lower, b_lower)


@triton.jit
def _forward(
    x_ptr,  # [n_rows, n_cols], rows x_stride apart
    bias_ptr,  # [n_cols]
    out_ptr,  # [n_rows, n_cols]
    n_rows,
    n_cols,
    n_run,  # rows of a program
    x_stride,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    STAGES: tl.constexpr,
):
    n_blocks = tl.cdiv(n_cols, COLUMNS)
    i_run = tl.program_id(0) // n_blocks
    o_col = (tl.program_id(0) % n_blocks) * COLUMNS + tl.arange(0, COLUMNS)
    m_col = o_col < n_cols
    b_bias = tl.load(bias_ptr + o_col, mask=m_col, other=0.0).to(tl.float32)
    i_start = i_run * n_run
    i_end = tl.minimum(i_start + n_run, n_rows)
    for i_tile in tl.range(i_start, i_end, ROWS, num_stages=STAGES):
        i_row = i_tile + tl.arange(0, ROWS)
        m_block = (i_row < i_end)[:, None] & m_col[None, :]
        o_row = i_row.to(tl.int64)[:, None]
        b_x = tl.load(x_ptr + o_row * x_stride + o_col[None, :], mask=m_block, other=0.0)
        b_out = _gelu(b_x.to(tl.float32) + b_bias[None, :]).to(out_ptr.dtype.element_ty)
        tl.store(out_ptr + o_row * n_cols + o_col[None, :], b_out, mask=m_block)


@triton.jit
def _backward(
    grad_ptr,  # [n_rows, n_cols], rows grad_stride apart
    x_ptr,  # [n_rows, n_cols], rows x_stride apart
    bias_ptr,  # [n_cols]
    grad_x_ptr,  # [n_rows, n_cols]
    partial_ptr,  # [n_runs, n_cols], fp32
    n_rows,
    n_cols,
    n_run,  # rows of a program
    grad_stride,
    x_stride,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    STAGES: tl.constexpr,
):
    n_blocks = tl.cdiv(n_cols, COLUMNS)
    i_run = tl.program_id(0) // n_blocks
    o_col = (tl.program_id(0) % n_blocks) * COLUMNS + tl.arange(0, COLUMNS)
    m_col = o_col < n_cols
    b_bias = tl.load(bias_ptr + o_col, mask=m_col, other=0.0).to(tl.float32)
    b_sum = tl.zeros([ROWS, COLUMNS], tl.float32)
    i_start = i_run * n_run
    i_end = tl.minimum(i_start + n_run, n_rows)
    for i_tile in tl.range(i_start, i_end, ROWS, num_stages=STAGES):
        i_row = i_tile + tl.arange(0, ROWS)
        m_block = (i_row < i_end)[:, None] & m_col[None, :]
        o_row = i_row.to(tl.int64)[:, None]
        b_grad = tl.load(grad_ptr + o_row * grad_stride + o_col[None, :], mask=m_block, other=0.0)
        b_x = tl.load(x_ptr + o_row * x_stride + o_col[None, :], mask=m_block, other=0.0)
        b_out = b_grad.to(tl.float32) * _slope(b_x.to(tl.float32) + b_bias[None, :])
        b_sum += b_out  # masked values have grad 0
        b_out = b_out.to(grad_x_ptr.dtype.element_ty)
        tl.store(grad_x_ptr + o_row * n_cols + o_col[None, :], b_out, mask=m_block)
    p_partial = partial_ptr + i_run.to(tl.int64) * n_cols
    tl.store(p_partial + o_col, tl.sum(b_sum, 0), mask=m_col)


def _columns(width: int) -> int:
    return min(LAUNCH.columns, power_of_2(width))


def _runs(rows: int, tile: int, blocks: int, most: int) -> tuple[int, int]:
    """(runs, rows of each): `most` programs at once, `blocks` of them for each run of rows."""
    tiles = cdiv(rows, tile)
    run = cdiv(tiles, min(tiles, max(1, most // blocks))) * tile
    return cdiv(rows, run), run


def forward(args: Arguments) -> Tensor:
    """gelu(x + bias), [..., D]; see ops/bias_gelu.py."""
    x = args.x
    out = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    if x.numel() == 0:
        return out
    x_rows = as_rows(x)
    rows, width = x_rows.shape
    columns = _columns(width)
    blocks = cdiv(width, columns)
    tensors = (x_rows, args.bias.contiguous(), out)
    constants = {"ROWS": LAUNCH.rows, "COLUMNS": columns, "STAGES": LAUNCH.stages}
    with torch.cuda.device_of(x):
        most = programs_at_once(
            _forward,
            (*tensors, rows, width, LAUNCH.rows, x_rows.stride(0)),
            constants,
            LAUNCH.num_warps,
            x.device,
            assumed_registers("bias_gelu"),
            LAUNCH.programs,
        )
        runs, run = _runs(rows, LAUNCH.rows, blocks, most)
        _forward[(runs * blocks,)](
            *tensors, rows, width, run, x_rows.stride(0), **constants, num_warps=LAUNCH.num_warps
        )
    return out


def backward(args: Arguments) -> tuple[Tensor, Tensor]:
    """Gradients of x [..., D] and of the bias [D]; see ops/bias_gelu.py."""
    x, bias = args.x, args.bias
    grad_x = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    grad_bias = torch.empty(bias.shape, dtype=bias.dtype, device=bias.device)
    if x.numel() == 0:
        return grad_x, grad_bias.zero_()
    grad_rows, x_rows = as_rows(args.grad), as_rows(x)
    rows, width = x_rows.shape
    columns = _columns(width)
    blocks = cdiv(width, columns)
    tensors = (grad_rows, x_rows, bias.contiguous(), grad_x)
    strides = (grad_rows.stride(0), x_rows.stride(0))
    constants = {"ROWS": LAUNCH.backward_rows, "COLUMNS": columns, "STAGES": LAUNCH.backward_stages}
    with torch.cuda.device_of(x):
        most = programs_at_once(
            _backward,
            (*tensors, torch.float32, rows, width, LAUNCH.backward_rows, *strides),
            constants,
            LAUNCH.num_warps,
            x.device,
            assumed_registers("bias_gelu_backward"),
            LAUNCH.programs,
        )
        runs, run = _runs(rows, LAUNCH.backward_rows, blocks, most)
        partial = torch.empty((1, runs, width), dtype=torch.float32, device=x.device)
        _backward[(runs * blocks,)](
            *tensors, partial, rows, width, run, *strides, **constants, num_warps=LAUNCH.num_warps
        )
        sum_columns(partial, [grad_bias])
    return grad_x, grad_bias
