"""Bias and GELU (erf), forward and backward, in one pass each.

Both want the normal distribution function, and backward its density too. One exponential and a
polynomial give both (see `_normal`), so that arithmetic stays below what the memory traffic leaves
time for. See docs/kernels/bias_gelu.md.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from videomae_fast.kernels.columns import multiprocessors, sum_columns


@dataclass(frozen=True)
class Launch:
    """How the kernels are launched. Modelled, not yet measured on a GPU.

    Attributes:
        columns: of a tile: a warp reads 512 bytes of a row in 16-bit types, 16 per lane.
        rows: of a forward tile: 32 values per lane, so the bias is 6 % of the bytes, from L2.
        backward_rows: fewer, as backward holds two inputs and the sums of its columns.
        programs: of backward per multiprocessor, as many as its registers let in; each sums a run
            of rows, so partial sums are below 1 % of the bytes.
    """

    num_warps: int = 4
    columns: int = 256
    rows: int = 16
    backward_rows: int = 8
    programs: int = 6


LAUNCH = Launch()


@triton.jit
def _normal(b_z):
    """(distribution function, density) of the standard normal distribution.

    For z <= 0 the first is ``exp(-z²/2) t P(t)``, ``t = 1 / (1 + 0.305 |z|)``, the rest is its
    mirror image. P was fitted by iteratively reweighted least squares for the least relative error
    (1.1e-7, |z| <= 13); unlike ``1 + erf(z)`` it cancels nothing in the lower tail.
    """
    b_abs = tl.abs(b_z)
    b_exp = tl.exp2(b_z * b_z * -0.7213475204444817)  # log2(e) / 2
    b_t = 1.0 / (1.0 + 0.305 * b_abs)
    b_poly = 0.036758190 * b_t - 0.153237441
    b_poly = b_poly * b_t + 0.186152092
    b_poly = b_poly * b_t - 0.038382859
    b_poly = b_poly * b_t + 0.121239232
    b_poly = b_poly * b_t + 0.103354234
    b_poly = b_poly * b_t + 0.122477569
    b_poly = b_poly * b_t + 0.121639030
    b_tail = b_exp * b_t * b_poly
    return tl.where(b_z > 0.0, 1.0 - b_tail, b_tail), b_exp * 0.3989422804014327


@triton.jit
def _forward(
    x_ptr,  # [n_rows, n_cols], rows x_stride apart
    bias_ptr,  # [n_cols]
    out_ptr,  # [n_rows, n_cols]
    n_rows,
    n_cols,
    x_stride,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    n_blocks = tl.cdiv(n_cols, COLUMNS)
    i_program = tl.program_id(0)
    o_col = (i_program % n_blocks) * COLUMNS + tl.arange(0, COLUMNS)
    i_row = (i_program // n_blocks) * ROWS + tl.arange(0, ROWS)
    m_col = o_col < n_cols
    m_block = (i_row < n_rows)[:, None] & m_col[None, :]
    o_row = i_row.to(tl.int64)[:, None]
    b_bias = tl.load(bias_ptr + o_col, mask=m_col, other=0.0).to(tl.float32)
    b_x = tl.load(x_ptr + o_row * x_stride + o_col[None, :], mask=m_block, other=0.0)
    b_z = b_x.to(tl.float32) + b_bias[None, :]
    b_cdf, _ = _normal(b_z)
    b_out = (b_z * b_cdf).to(out_ptr.dtype.element_ty)
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
):
    n_blocks = tl.cdiv(n_cols, COLUMNS)
    i_run = tl.program_id(0) // n_blocks
    o_col = (tl.program_id(0) % n_blocks) * COLUMNS + tl.arange(0, COLUMNS)
    m_col = o_col < n_cols
    b_bias = tl.load(bias_ptr + o_col, mask=m_col, other=0.0).to(tl.float32)
    b_sum = tl.zeros([ROWS, COLUMNS], tl.float32)
    i_start = i_run * n_run
    i_end = tl.minimum(i_start + n_run, n_rows)
    for i_tile in range(i_start, i_end, ROWS):
        i_row = i_tile + tl.arange(0, ROWS)
        m_block = (i_row < i_end)[:, None] & m_col[None, :]
        o_row = i_row.to(tl.int64)[:, None]
        b_grad = tl.load(grad_ptr + o_row * grad_stride + o_col[None, :], mask=m_block, other=0.0)
        b_x = tl.load(x_ptr + o_row * x_stride + o_col[None, :], mask=m_block, other=0.0)
        b_z = b_x.to(tl.float32) + b_bias[None, :]
        b_cdf, b_density = _normal(b_z)
        b_out = b_grad.to(tl.float32) * (b_cdf + b_z * b_density)
        b_sum += b_out  # masked values have grad 0
        b_out = b_out.to(grad_x_ptr.dtype.element_ty)
        tl.store(grad_x_ptr + o_row * n_cols + o_col[None, :], b_out, mask=m_block)
    p_partial = partial_ptr + i_run.to(tl.int64) * n_cols
    tl.store(p_partial + o_col, tl.sum(b_sum, 0), mask=m_col)


def _rows(x: Tensor) -> Tensor:
    """[rows, columns] with neighbouring columns, a view where the layout allows it."""
    x = x.reshape(-1, x.shape[-1])
    return x if x.stride(-1) == 1 else x.contiguous()


def _columns(width: int) -> int:
    return min(LAUNCH.columns, int(triton.next_power_of_2(width)))


def forward(x: Tensor, bias: Tensor) -> Tensor:
    """gelu(x + bias), [..., D]; see ops/bias_gelu.py."""
    out = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    if x.numel() == 0:
        return out
    x_rows = _rows(x)
    rows, width = x_rows.shape
    columns = _columns(width)
    with torch.cuda.device_of(x):
        _forward[(triton.cdiv(rows, LAUNCH.rows) * triton.cdiv(width, columns),)](
            x_rows,
            bias.contiguous(),
            out,
            rows,
            width,
            x_rows.stride(0),
            ROWS=LAUNCH.rows,
            COLUMNS=columns,
            num_warps=LAUNCH.num_warps,
        )
    return out


def backward(grad: Tensor, x: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of x [..., D] and of the bias [D]; see ops/bias_gelu.py."""
    grad_x = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    grad_bias = torch.empty(bias.shape, dtype=bias.dtype, device=bias.device)
    if x.numel() == 0:
        return grad_x, grad_bias.zero_()
    grad_rows, x_rows = _rows(grad), _rows(x)
    rows, width = x_rows.shape
    columns = _columns(width)
    blocks = triton.cdiv(width, columns)
    tiles = triton.cdiv(rows, LAUNCH.backward_rows)
    runs = min(tiles, max(1, LAUNCH.programs * multiprocessors(x.device) // blocks))
    run = triton.cdiv(tiles, runs) * LAUNCH.backward_rows
    runs = triton.cdiv(rows, run)
    partial = torch.empty((1, runs, width), dtype=torch.float32, device=x.device)
    with torch.cuda.device_of(x):
        _backward[(runs * blocks,)](
            grad_rows,
            x_rows,
            bias.contiguous(),
            grad_x,
            partial,
            rows,
            width,
            run,
            grad_rows.stride(0),
            x_rows.stride(0),
            ROWS=LAUNCH.backward_rows,
            COLUMNS=columns,
            num_warps=LAUNCH.num_warps,
        )
        sum_columns(partial, [grad_bias])
    return grad_x, grad_bias
