"""Token gather and scatter along the token axis, each the other's backward.

The scatter has no atomics: a program owns output rows and looks for them in its clip's index list,
so that every row is written once and repeated positions are added in the order of the list.
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
        rows, columns: of a gather's tile. 16×256 values are 32 a lane with 4 warps: four 16-byte
            loads of bf16 in flight each. Widths that are no multiple of 256 leave lanes idle, no
            bytes.
        scatter_columns: of a scatter's tile, whose fp32 sums live beside the list: 256 would take
            168 registers and spill.
        list_block: entries of the index list that a scatter compares with its 16 rows at once.
    """

    rows: int = 16
    columns: int = 256
    scatter_columns: int = 128
    list_block: int = 128
    num_warps: int = 4
    num_stages: int = 1


LAUNCH = Launch()


@triton.jit
def token_gather_kernel(
    x_ptr,  # [B, N, D]; strides of clip and row given
    index_ptr,  # [B, K] int32
    out_ptr,  # [B, K, D]
    n_rows,  # B * K
    per_clip,  # K
    clip_stride,
    row_stride,
    WIDTH: tl.constexpr,  # D
    BLOCK_R: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    i_row = tl.program_id(0) * BLOCK_R + tl.arange(0, BLOCK_R)  # [BLOCK_R]
    m_row = i_row < n_rows
    o_column = tl.program_id(1) * BLOCK_D + tl.arange(0, BLOCK_D)  # [BLOCK_D]
    m_tile = m_row[:, None] & (o_column < WIDTH)[None, :]
    position = tl.load(index_ptr + i_row, mask=m_row, other=0)
    o_clip = (i_row // per_clip).to(tl.int64) * clip_stride  # [BLOCK_R]
    p_x = x_ptr + (o_clip + position.to(tl.int64) * row_stride)[:, None] + o_column[None, :]
    b_x = tl.load(p_x, mask=m_tile)  # [BLOCK_R, BLOCK_D]
    p_out = out_ptr + i_row.to(tl.int64)[:, None] * WIDTH + o_column[None, :]
    tl.store(p_out, b_x, mask=m_tile)


@triton.jit
def _matches_after(
    p_list,  # [count], one clip's index list
    count,
    i_row,  # [BLOCK_R], output rows
    last,  # [BLOCK_R], list entries up to and including these are passed over
    BLOCK_R: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """Of each row, the first list entry after `last` that names it (count: none), and how many."""
    b_first = tl.full((BLOCK_R, BLOCK_K), 0, tl.int32) + count
    b_many = tl.zeros((BLOCK_R, BLOCK_K), tl.int32)
    for start in range(0, count, BLOCK_K):
        o_entry = start + tl.arange(0, BLOCK_K)  # [BLOCK_K]
        position = tl.load(p_list + o_entry, mask=o_entry < count, other=-1)
        m_hit = (position[None, :] == i_row[:, None]) & (o_entry[None, :] > last[:, None])
        b_first = tl.minimum(b_first, tl.where(m_hit, o_entry[None, :], count))
        b_many += m_hit.to(tl.int32)
    return tl.min(b_first, axis=1), tl.sum(b_many, axis=1)


@triton.jit
def token_scatter_kernel(
    x_ptr,  # [B, K, D]; strides of clip and row given
    index_ptr,  # [B, K] int32
    out_ptr,  # [B, N, D]
    tokens,  # N
    per_clip,  # K
    clip_stride,
    row_stride,
    WIDTH: tl.constexpr,  # D
    BLOCK_R: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    i_clip = tl.program_id(0).to(tl.int64)
    i_row = tl.program_id(1) * BLOCK_R + tl.arange(0, BLOCK_R)  # [BLOCK_R]
    p_list = index_ptr + i_clip * per_clip
    p_clip = x_ptr + i_clip * clip_stride
    p_out = out_ptr + (i_clip * tokens + i_row)[:, None] * WIDTH
    nothing = tl.full((BLOCK_R,), -1, tl.int32)
    first, many = _matches_after(p_list, per_clip, i_row, nothing, BLOCK_R, BLOCK_K)
    most = tl.max(many, axis=0)
    for start in range(0, WIDTH, BLOCK_D):
        o_column = start + tl.arange(0, BLOCK_D)  # [BLOCK_D]
        m_column = (o_column < WIDTH)[None, :]
        p_x = p_clip + first.to(tl.int64)[:, None] * row_stride + o_column[None, :]
        b_sum = tl.load(p_x, mask=(first < per_clip)[:, None] & m_column, other=0.0).to(tl.float32)
        entry = first
        for _ in range(1, most):  # rare: positions that repeat
            entry, _many = _matches_after(p_list, per_clip, i_row, entry, BLOCK_R, BLOCK_K)
            p_x = p_clip + entry.to(tl.int64)[:, None] * row_stride + o_column[None, :]
            m_x = (entry < per_clip)[:, None] & m_column
            b_sum += tl.load(p_x, mask=m_x, other=0.0).to(tl.float32)
        b_out = b_sum.to(out_ptr.dtype.element_ty)  # [BLOCK_R, BLOCK_D]
        tl.store(p_out + o_column[None, :], b_out, mask=(i_row < tokens)[:, None] & m_column)


def token_gather(args: Arguments) -> Tensor:
    """``out[b, k] = x[b, index[b, k]]``, [B, K, D].

    Rows of `x` may lie anywhere; if its columns are not adjacent it is copied first, and so is an
    index that is not contiguous.
    """
    x, index = args.x, args.index
    (b, _, d), k = x.shape, index.shape[1]
    out = torch.empty((b, k, d), dtype=x.dtype, device=x.device)
    if out.numel() == 0:
        return out
    if x.stride(2) != 1:
        x = x.contiguous()
    block_d = min(power_of_2(d), LAUNCH.columns)
    with torch.cuda.device_of(x):
        token_gather_kernel[(cdiv(b * k, LAUNCH.rows), cdiv(d, block_d))](
            x,
            index.contiguous(),
            out,
            b * k,
            k,
            x.stride(0),
            x.stride(1),
            WIDTH=d,
            BLOCK_R=LAUNCH.rows,
            BLOCK_D=block_d,
            num_warps=LAUNCH.num_warps,
            num_stages=LAUNCH.num_stages,
        )
    return out


def token_scatter(args: Arguments) -> Tensor:
    """``out[b, index[b, k]] += x[b, k]`` into zeros, [B, tokens, D], added in fp32.

    Strides as in :func:`token_gather`.
    """
    x, tokens = args.x, args.tokens
    b, k, d = x.shape
    out = torch.empty((b, tokens, d), dtype=x.dtype, device=x.device)
    if out.numel() == 0:
        return out
    if x.stride(2) != 1:
        x = x.contiguous()
    with torch.cuda.device_of(x):
        token_scatter_kernel[(b, cdiv(tokens, LAUNCH.rows))](
            x,
            args.index.contiguous(),
            out,
            tokens,
            k,
            x.stride(0),
            x.stride(1),
            WIDTH=d,
            BLOCK_R=LAUNCH.rows,
            BLOCK_D=min(power_of_2(d), LAUNCH.scatter_columns),
            BLOCK_K=LAUNCH.list_block,
            num_warps=LAUNCH.num_warps,
            num_stages=LAUNCH.num_stages,
        )
    return out
