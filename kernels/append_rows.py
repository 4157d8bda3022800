"""Rows of a table that all clips share, appended to each clip's own rows.

Backward sums, for each row of the table, the gradients of all entries that name it. Each clip's
entries are linked first: from a position to the first entry that names it, from an entry to the
next one of the same position. A program adds those of its row, clip by clip: no atomics, positions
may repeat, and two runs are equal bit for bit.
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
    """Launch choices; timed on an H100 (docs/performance-log.md).

    Attributes:
        rows, columns: of a tile. 16×128 values are 16 a lane with 4 warps: two 16-byte loads of
            bf16 in flight each. 128 divides 3 × 384 and 3 × 512.
        backward_rows: of a tile, one per clip; a row of the table is named by about half of them.
        entries: of a clip that are linked at once, each compared with `list_block` at a time.
    """

    rows: int = 16
    columns: int = 128
    backward_rows: int = 32
    entries: int = 16
    list_block: int = 128
    num_warps: int = 4
    num_stages: int = 1


LAUNCH = Launch()
REPEATS = 2**30  # above any entry of a clip


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
def link_entries_kernel(
    index_ptr,  # [B, M] int32
    first_ptr,  # [N, B] int32, -1 where a clip does not name a position
    next_ptr,  # [B, M] int32
    clips,  # B
    appended,  # M
    REPEATS: tl.constexpr,  # added to a first entry that is not the only one
    BLOCK_E: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    i_clip = tl.program_id(0).to(tl.int64)
    i_own = tl.program_id(1) * BLOCK_E
    o_own = i_own + tl.arange(0, BLOCK_E)  # [BLOCK_E]
    m_own = o_own < appended
    p_list = index_ptr + i_clip * appended
    own = tl.load(p_list + o_own, mask=m_own, other=0)
    b_earlier = tl.zeros((BLOCK_E, BLOCK_K), tl.int32)
    for start in range(0, i_own + BLOCK_E, BLOCK_K):
        o_entry = start + tl.arange(0, BLOCK_K)  # [BLOCK_K]
        position = tl.load(p_list + o_entry, mask=o_entry < appended, other=-1)
        m_same = (position[None, :] == own[:, None]) & (o_entry[None, :] < o_own[:, None])
        b_earlier |= m_same.to(tl.int32)
    b_next = tl.full((BLOCK_E, BLOCK_K), 0, tl.int32) + appended
    for start in range(i_own, appended, BLOCK_K):
        o_entry = start + tl.arange(0, BLOCK_K)
        position = tl.load(p_list + o_entry, mask=o_entry < appended, other=-1)
        m_same = (position[None, :] == own[:, None]) & (o_entry[None, :] > o_own[:, None])
        b_next = tl.minimum(b_next, tl.where(m_same, o_entry[None, :], appended))
    following = tl.min(b_next, axis=1)
    tl.store(next_ptr + i_clip * appended + o_own, following, mask=m_own)
    first = tl.where(following < appended, o_own + REPEATS, o_own)
    m_first = m_own & (tl.max(b_earlier, axis=1) == 0)
    tl.store(first_ptr + own.to(tl.int64) * clips + i_clip, first, mask=m_first)


@triton.jit
def append_rows_backward_kernel(
    grad_ptr,  # [B, V + M, C]; strides of clip and row given
    first_ptr,  # [N, B] int32, by link_entries_kernel
    next_ptr,  # [B, M] int32, by the same
    out_ptr,  # [N, C]
    clips,  # B
    own,  # V
    appended,  # M
    clip_stride,
    row_stride,
    WIDTH: tl.constexpr,  # C
    REPEATS: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    i_position = tl.program_id(0).to(tl.int64)
    o_column = tl.program_id(1) * BLOCK_D + tl.arange(0, BLOCK_D)  # [BLOCK_D]
    m_column = o_column < WIDTH
    b_sum = tl.zeros((BLOCK_R, BLOCK_D), tl.float32)
    for start in range(0, clips, BLOCK_R):
        i_clip = start + tl.arange(0, BLOCK_R)  # [BLOCK_R]
        found = tl.load(first_ptr + i_position * clips + i_clip, mask=i_clip < clips, other=-1)
        i_clip = i_clip.to(tl.int64)
        entry = found & (REPEATS - 1)
        p_clip = grad_ptr + i_clip * clip_stride
        p_grad = (p_clip + (own + entry).to(tl.int64) * row_stride)[:, None] + o_column[None, :]
        m_tile = (found >= 0)[:, None] & m_column[None, :]
        b_sum += tl.load(p_grad, mask=m_tile, other=0.0).to(tl.float32)  # [BLOCK_R, BLOCK_D]
        m_more = found >= REPEATS
        while tl.max(m_more.to(tl.int32), axis=0) > 0:  # rare: positions that repeat
            p_next = next_ptr + i_clip * appended + entry
            entry = tl.load(p_next, mask=m_more, other=appended)
            m_more = entry < appended
            p_grad = (p_clip + (own + entry).to(tl.int64) * row_stride)[:, None] + o_column[None, :]
            m_tile = m_more[:, None] & m_column[None, :]
            b_sum += tl.load(p_grad, mask=m_tile, other=0.0).to(tl.float32)
    b_out = tl.sum(b_sum, axis=0).to(out_ptr.dtype.element_ty)
    tl.store(out_ptr + i_position * WIDTH + o_column, b_out, mask=m_column)


def _block_d(width: int) -> int:
    return min(power_of_2(width), LAUNCH.columns)


def append_rows(args: Arguments) -> Tensor:
    """``out[b, :V] = x[b]`` and ``out[b, V:] = table[index[b]]``, [B, V + M, C].

    Rows of `x` may lie anywhere; it is copied first if its columns are not adjacent, and so is each
    of the others if it is not contiguous.
    """
    x, index = args.x, args.index
    (b, v, c), m = x.shape, index.shape[1]
    out = torch.empty((b, v + m, c), dtype=x.dtype, device=x.device)
    if out.numel() == 0:
        return out
    if x.stride(2) != 1:
        x = x.contiguous()
    rows, block_d = b * (v + m), _block_d(c)
    with torch.cuda.device_of(x):
        append_rows_kernel[(cdiv(rows, LAUNCH.rows), cdiv(c, block_d))](
            x,
            args.table.contiguous(),
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


def append_rows_backward(args: Arguments) -> Tensor:
    """The table's gradient [rows, C], dtype of `grad` [B, V + M, C], summed in fp32.

    Clips and rows of `grad` may lie anywhere (an expanded one is read in place); it is copied first
    if its columns are not adjacent.
    """
    grad, index, rows = args.grad, args.index, args.rows
    (_, length, c), m = grad.shape, index.shape[1]
    out = torch.empty((rows, c), dtype=grad.dtype, device=grad.device)
    if out.numel() == 0:
        return out
    if grad.stride(2) != 1:
        grad = grad.contiguous()
    clips, index = grad.shape[0], index.contiguous()
    first = torch.full((rows, clips), -1, dtype=torch.int32, device=index.device)
    following = torch.empty_like(index)
    block_d = _block_d(c)
    with torch.cuda.device_of(grad):
        if index.numel():
            link_entries_kernel[(clips, cdiv(m, LAUNCH.entries))](
                index,
                first,
                following,
                clips,
                m,
                REPEATS=REPEATS,
                BLOCK_E=LAUNCH.entries,
                BLOCK_K=LAUNCH.list_block,
                num_warps=LAUNCH.num_warps,
                num_stages=LAUNCH.num_stages,
            )
        append_rows_backward_kernel[(rows, cdiv(c, block_d))](
            grad,
            first,
            following,
            out,
            clips,
            length - m,
            m,
            grad.stride(0),
            grad.stride(1),
            WIDTH=c,
            REPEATS=REPEATS,
            BLOCK_R=min(power_of_2(max(1, clips)), LAUNCH.backward_rows),
            BLOCK_D=block_d,
            num_warps=LAUNCH.num_warps,
            num_stages=LAUNCH.num_stages,
        )
    return out
