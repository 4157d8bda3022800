"""Matmuls with bias and GELU (erf) in their epilogues: the two where an MLP's wide tensors pass.

Forward, x W1ᵀ: what the product leaves in registers is written as it is, for backward, and with
bias and GELU. Backward, the output's gradient times W2: multiplied by GELU's slope before it is
written, its columns summed for the bias. See docs/kernels/gelu_mlp.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from videomae_fast.arguments import Arguments
from videomae_fast.kernels.bias_gelu import _gelu, _slope
from videomae_fast.kernels.columns import sum_columns
from videomae_fast.kernels.host import cdiv


@dataclass(frozen=True)
class Launch:
    """Sizes of a program's block of the product. Modelled, not yet measured on a GPU.

    Attributes:
        rows, columns: of the block.
        inner: of a step of the product.
        group: blocks of rows that walk over the columns together, for the second-level cache.
    """

    rows: int
    columns: int
    inner: int
    num_warps: int
    num_stages: int
    group: int = 8


HALF = Launch(rows=128, columns=128, inner=64, num_warps=8, num_stages=3)
# fp32 as three products of TF32
SINGLE = Launch(rows=64, columns=64, inner=32, num_warps=8, num_stages=2)
INTERPRETED = not isinstance(_gelu, triton.JITFunction)
_DOT = {torch.float32: tl.float32, torch.bfloat16: tl.bfloat16, torch.float16: tl.float16}


@triton.jit
def _block(
    i_program, n_rows, n_cols, ROWS: tl.constexpr, COLUMNS: tl.constexpr, GROUP: tl.constexpr
):
    """Which block of rows and of columns a program has."""
    n_row_blocks, n_col_blocks = tl.cdiv(n_rows, ROWS), tl.cdiv(n_cols, COLUMNS)
    i_first = i_program // (GROUP * n_col_blocks) * GROUP
    n_group = tl.minimum(n_row_blocks - i_first, GROUP)
    i_within = i_program % (GROUP * n_col_blocks)
    return i_first + i_within % n_group, i_within // n_group


@triton.jit
def _product(
    a_ptr,  # [n_rows, n_inner]
    b_ptr,  # element (inner, column) at inner * b_stride_inner + column * b_stride_col
    o_row, o_col, n_rows, n_cols, n_inner, b_stride_inner, b_stride_col,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    INNER: tl.constexpr,
    DOT: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """[ROWS, COLUMNS] of a b, fp32."""
    b_sum = tl.zeros([ROWS, COLUMNS], tl.float32)
    p_a = a_ptr + o_row.to(tl.int64)[:, None] * n_inner
    p_b = b_ptr + o_col.to(tl.int64)[None, :] * b_stride_col
    for i_start in range(0, n_inner, INNER):
        o_inner = i_start + tl.arange(0, INNER)
        m_inner = o_inner < n_inner
        m_a = (o_row < n_rows)[:, None] & m_inner[None, :]
        m_b = m_inner[:, None] & (o_col < n_cols)[None, :]
        b_a = tl.load(p_a + o_inner[None, :], mask=m_a, other=0.0).to(DOT)
        b_b = tl.load(p_b + o_inner.to(tl.int64)[:, None] * b_stride_inner, mask=m_b, other=0.0)
        b_sum = tl.dot(b_a, b_b.to(DOT), b_sum, input_precision=PRECISION)
    return b_sum


@triton.jit
def gelu_mlp_forward(
    x_ptr,  # [n_rows, n_inner]
    weight_ptr,  # [n_cols, n_inner]
    bias_ptr,  # [n_cols]
    hidden_ptr,  # [n_rows, n_cols], written: the product
    active_ptr,  # [n_rows, n_cols], written: gelu(product + bias)
    n_rows,
    n_cols,
    n_inner,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    INNER: tl.constexpr,
    GROUP: tl.constexpr,
    DOT: tl.constexpr,
    PRECISION: tl.constexpr,
):
    i_row, i_col = _block(tl.program_id(0), n_rows, n_cols, ROWS, COLUMNS, GROUP)
    o_row, o_col = i_row * ROWS + tl.arange(0, ROWS), i_col * COLUMNS + tl.arange(0, COLUMNS)
    b_hidden = _product(
        x_ptr, weight_ptr, o_row, o_col, n_rows, n_cols, n_inner, 1, n_inner,
        ROWS, COLUMNS, INNER, DOT, PRECISION,
    )  # fmt: skip
    m_col = o_col < n_cols
    b_bias = tl.load(bias_ptr + o_col, mask=m_col, other=0.0).to(tl.float32)
    m_block = (o_row < n_rows)[:, None] & m_col[None, :]
    o_block = o_row.to(tl.int64)[:, None] * n_cols + o_col[None, :]
    dtype = hidden_ptr.dtype.element_ty
    tl.store(hidden_ptr + o_block, b_hidden.to(dtype), mask=m_block)
    tl.store(active_ptr + o_block, _gelu(b_hidden + b_bias[None, :]).to(dtype), mask=m_block)


@triton.jit
def gelu_mlp_backward(
    grad_ptr,  # [n_rows, n_inner], of the MLP's output
    weight_ptr,  # [n_inner, n_cols], of the second layer
    hidden_ptr,  # [n_rows, n_cols], as forward left it
    bias_ptr,  # [n_cols]
    grad_hidden_ptr,  # [n_rows, n_cols], written
    partial_ptr,  # [blocks of rows, n_cols], fp32, written: sums of grad_hidden
    n_rows,
    n_cols,
    n_inner,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    INNER: tl.constexpr,
    GROUP: tl.constexpr,
    DOT: tl.constexpr,
    PRECISION: tl.constexpr,
):
    i_row, i_col = _block(tl.program_id(0), n_rows, n_cols, ROWS, COLUMNS, GROUP)
    o_row, o_col = i_row * ROWS + tl.arange(0, ROWS), i_col * COLUMNS + tl.arange(0, COLUMNS)
    b_grad = _product(
        grad_ptr, weight_ptr, o_row, o_col, n_rows, n_cols, n_inner, n_cols, 1,
        ROWS, COLUMNS, INNER, DOT, PRECISION,
    )  # fmt: skip
    m_col = o_col < n_cols
    b_bias = tl.load(bias_ptr + o_col, mask=m_col, other=0.0).to(tl.float32)
    m_block = (o_row < n_rows)[:, None] & m_col[None, :]
    o_block = o_row.to(tl.int64)[:, None] * n_cols + o_col[None, :]
    b_hidden = tl.load(hidden_ptr + o_block, mask=m_block, other=0.0).to(tl.float32)
    b_grad *= _slope(b_hidden + b_bias[None, :])  # rows past the end have gradient 0
    tl.store(grad_hidden_ptr + o_block, b_grad.to(grad_hidden_ptr.dtype.element_ty), mask=m_block)
    tl.store(partial_ptr + i_row.to(tl.int64) * n_cols + o_col, tl.sum(b_grad, 0), mask=m_col)


def _constants(dtype: torch.dtype) -> tuple[Launch, dict[str, Any]]:
    launch = SINGLE if dtype == torch.float32 else HALF
    # The interpreter's bf16 products are wrong; tf32x3 is fp32 but for the last bits.
    dot = torch.float32 if INTERPRETED else dtype
    return launch, {
        "ROWS": launch.rows,
        "COLUMNS": launch.columns,
        "INNER": launch.inner,
        "GROUP": launch.group,
        "DOT": _DOT[dot],
        "PRECISION": "tf32x3" if dot == torch.float32 else "ieee",
        "num_warps": launch.num_warps,
        "num_stages": launch.num_stages,
    }


def forward(args: Arguments) -> tuple[Tensor, Tensor, Tensor]:
    """(output, hidden, active); see ops/gelu_mlp.py."""
    x, first, second = args.x, args.first, args.second
    rows = x.reshape(-1, x.shape[-1]).contiguous()
    count, width = rows.shape[0], first.shape[0]
    shape = (*x.shape[:-1], width)
    hidden, active = (torch.empty(shape, dtype=x.dtype, device=x.device) for _ in range(2))
    if hidden.numel():
        launch, constants = _constants(x.dtype)
        grid = (cdiv(count, launch.rows) * cdiv(width, launch.columns),)
        with torch.cuda.device_of(x):
            gelu_mlp_forward[grid](
                rows, first.contiguous(), args.bias.contiguous(), hidden, active,
                count, width, rows.shape[1], **constants,
            )  # fmt: skip
    out = torch.mm(active.view(-1, width), second.t())
    return out.view(*x.shape[:-1], second.shape[0]), hidden, active


def backward(args: Arguments) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of x, first, bias and second; see ops/gelu_mlp.py."""
    x, bias = args.x, args.bias
    outer = args.grad.reshape(-1, args.grad.shape[-1]).contiguous()
    rows = x.reshape(-1, x.shape[-1])
    count, width = rows.shape[0], bias.shape[0]
    grad_hidden = torch.empty((count, width), dtype=x.dtype, device=x.device)
    grad_bias = torch.empty(bias.shape, dtype=bias.dtype, device=bias.device)
    launch, constants = _constants(x.dtype)
    blocks = cdiv(count, launch.rows)
    if count:
        partial = torch.empty((1, blocks, width), dtype=torch.float32, device=x.device)
        with torch.cuda.device_of(x):
            gelu_mlp_backward[(blocks * cdiv(width, launch.columns),)](
                outer, args.second.contiguous(), args.hidden.contiguous(), bias.contiguous(),
                grad_hidden, partial,
                count, width, outer.shape[1], **constants,
            )  # fmt: skip
        sum_columns(partial, [grad_bias])
    else:
        grad_bias.zero_()
    return (
        torch.mm(grad_hidden, args.first).view(x.shape) if args.needs_x else x.new_empty(0),
        torch.mm(grad_hidden.t(), rows),
        grad_bias,
        torch.mm(outer.t(), args.active.reshape(-1, width)),
    )
