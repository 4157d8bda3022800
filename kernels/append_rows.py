"""Rows of a table that all clips share, appended to each clip's own rows.

Backward sums, for each row of the table, the gradients of all entries that name it. The entries are
sorted by position first (a stable sort), so that a program finds those of its row side by side: no
atomics, repeated positions are nothing special, and two runs are equal bit for bit.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor


@dataclass(frozen=True)
class Launch:
    """Launch choices; modelled, not yet measured on a GPU.

    Attributes:
        rows, columns: of a tile. 16×128 values are 16 a lane with 4 warps: two 16-byte loads of
            bf16 in flight each. 128 divides 3 × 384 and 3 × 512. A row of the table is named by
            about half of the clips: four tiles at batch 128.
    """

    rows: int = 16
    columns: int = 128
    num_warps: int = 4
    num_stages: int = 1


LAUNCH = Launch()


@triton.jit
def append_rows_kernel(
    x_ptr,  # [B, V, C]; strides of clip and row given
    table_ptr,  # [N, C]
    index_ptr,  # [B, M] int32
    out_ptr,  # [B, V + M, C]
    n_rows,  # B * (V + M)
    own,  # V
    appended,  # M
    clip_stride,
    row_stride,
    WIDTH: tl.constexpr,  # C
    BLOCK_R: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    i_row = tl.program_id(0) * BLOCK_R + tl.arange(0, BLOCK_R)  # [BLOCK_R]
    m_row = i_row < n_rows
    o_column = tl.program_id(1) * BLOCK_D + tl.arange(0, BLOCK_D)  # [BLOCK_D]
    m_tile = m_row[:, None] & (o_column < WIDTH)[None, :]
    i_clip = i_row // (own + appended)
    i_token = i_row % (own + appended)
    m_own = i_token < own
    p_index = index_ptr + i_clip * appended + i_token - own
    position = tl.load(p_index, mask=m_row & (i_token >= own), other=0)
    o_x = i_clip.to(tl.int64) * clip_stride + i_token.to(tl.int64) * row_stride  # [BLOCK_R]
    p_x = x_ptr + o_x[:, None] + o_column[None, :]
    b_x = tl.load(p_x, mask=m_tile & m_own[:, None], other=0.0)  # [BLOCK_R, BLOCK_D]
    p_table = table_ptr + position.to(tl.int64)[:, None] * WIDTH + o_column[None, :]
    b_table = tl.load(p_table, mask=m_tile & (i_token >= own)[:, None], other=0.0)
    p_out = out_ptr + i_row.to(tl.int64)[:, None] * WIDTH + o_column[None, :]
    tl.store(p_out, tl.where(m_own[:, None], b_x, b_table), mask=m_tile)


@triton.jit
def append_rows_backward_kernel(
    grad_ptr,  # [B, V + M, C]; strides of clip and row given
    order_ptr,  # [B * M] int64, entries of the index by position
    first_ptr,  # [N + 1] int32, where those of each position start
    out_ptr,  # [N, C]
    own,  # V
    appended,  # M
    clip_stride,
    row_stride,
    WIDTH: tl.constexpr,  # C
    BLOCK_R: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    i_position = tl.program_id(0)
    o_column = tl.program_id(1) * BLOCK_D + tl.arange(0, BLOCK_D)  # [BLOCK_D]
    m_column = o_column < WIDTH
    begin = tl.load(first_ptr + i_position)
    end = tl.load(first_ptr + i_position + 1)
    b_sum = tl.zeros((BLOCK_R, BLOCK_D), tl.float32)
    for start in range(begin, end, BLOCK_R):
        o_entry = start + tl.arange(0, BLOCK_R)  # [BLOCK_R]
        m_entry = o_entry < end
        entry = tl.load(order_ptr + o_entry, mask=m_entry, other=0)
        o_grad = (entry // appended) * clip_stride + (own + entry % appended) * row_stride
        p_grad = grad_ptr + o_grad[:, None] + o_column[None, :]
        m_tile = m_entry[:, None] & m_column[None, :]
        b_sum += tl.load(p_grad, mask=m_tile, other=0.0).to(tl.float32)  # [BLOCK_R, BLOCK_D]
    b_out = tl.sum(b_sum, axis=0).to(out_ptr.dtype.element_ty)
    tl.store(out_ptr + i_position.to(tl.int64) * WIDTH + o_column, b_out, mask=m_column)


def _block_d(width: int) -> int:
    return min(int(triton.next_power_of_2(width)), LAUNCH.columns)


def append_rows(x: Tensor, table: Tensor, index: Tensor) -> Tensor:
    """``out[b, :V] = x[b]`` and ``out[b, V:] = table[index[b]]``, [B, V + M, C].

    Rows of `x` may lie anywhere; it is copied first if its columns are not adjacent, and so is each
    of the others if it is not contiguous.
    """
    (b, v, c), m = x.shape, index.shape[1]
    out = torch.empty((b, v + m, c), dtype=x.dtype, device=x.device)
    if out.numel() == 0:
        return out
    if x.stride(2) != 1:
        x = x.contiguous()
    rows, block_d = b * (v + m), _block_d(c)
    with torch.cuda.device_of(x):
        append_rows_kernel[(triton.cdiv(rows, LAUNCH.rows), triton.cdiv(c, block_d))](
            x,
            table.contiguous(),
            index.contiguous(),
            out,
            rows,
            v,
            m,
            x.stride(0),
            x.stride(1),
            WIDTH=c,
            BLOCK_R=LAUNCH.rows,
            BLOCK_D=block_d,
            num_warps=LAUNCH.num_warps,
            num_stages=LAUNCH.num_stages,
        )
    return out


def append_rows_backward(grad: Tensor, index: Tensor, rows: int) -> Tensor:
    """The table's gradient [rows, C], dtype of `grad` [B, V + M, C], summed in fp32.

    Clips and rows of `grad` may lie anywhere (an expanded one is read in place); it is copied first
    if its columns are not adjacent.
    """
    (_, length, c), m = grad.shape, index.shape[1]
    out = torch.empty((rows, c), dtype=grad.dtype, device=grad.device)
    if out.numel() == 0:
        return out
    if grad.stride(2) != 1:
        grad = grad.contiguous()
    position, order = index.flatten().sort(stable=True)
    every = torch.arange(rows + 1, dtype=torch.int32, device=index.device)
    first = torch.searchsorted(position, every, out_int32=True)
    block_d = _block_d(c)
    with torch.cuda.device_of(grad):
        append_rows_backward_kernel[(rows, triton.cdiv(c, block_d))](
            grad,
            order,
            first,
            out,
            length - m,
            m,
            grad.stride(0),
            grad.stride(1),
            WIDTH=c,
            BLOCK_R=LAUNCH.rows,
            BLOCK_D=block_d,
            num_warps=LAUNCH.num_warps,
            num_stages=LAUNCH.num_stages,
        )
    return out
