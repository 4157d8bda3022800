"""Decoder sequence assembly: projected visible tokens, then mask tokens, each with its position.

Backward copies the visible rows' gradient and sums the mask rows' in the same pass: each program
sums a run of rows in a fixed order, then the programs' sums are added up (columns.py).
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


@dataclass(frozen=True)
class Launch:
    """Launch choices; modelled, not yet measured on a GPU.

    Attributes:
        rows, columns: of a tile. 16×128 values are 16 a lane with 4 warps: two 16-byte loads of
            bf16 and four of the fp32 table in flight. 128 divides all widths but 192.
        programs: most of backward, in all blocks of columns: each multiprocessor of 132 holds ten,
            so that 1024 are one wave at every width; 512 sums of each column were 1.2 to 1.5.
            The number depends on the sizes only, so that a sum is the same on every GPU.
    """

    rows: int = 16
    columns: int = 128
    programs: int = 1024
    num_warps: int = 4
    num_stages: int = 1


LAUNCH = Launch()


@triton.jit
def decoder_assembly_kernel(
    visible_ptr,  # [B, V, D]; strides of clip and row given
    mask_ptr,  # [D]
    positions_ptr,  # [N, D] fp32
    visible_index_ptr,  # [B, V] int32
    decoder_index_ptr,  # [B, M] int32
    out_ptr,  # [B, V + M, D]
    n_rows,  # B * (V + M)
    visible,  # V
    hidden,  # M
    clip_stride,
    row_stride,
    WIDTH: tl.constexpr,  # D
    BLOCK_R: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    i_row = tl.program_id(0) * BLOCK_R + tl.arange(0, BLOCK_R)  # [BLOCK_R]
    m_row = i_row < n_rows
    o_column = tl.program_id(1) * BLOCK_D + tl.arange(0, BLOCK_D)  # [BLOCK_D]
    m_column = o_column < WIDTH
    m_tile = m_row[:, None] & m_column[None, :]
    i_clip = i_row // (visible + hidden)
    i_token = i_row % (visible + hidden)
    m_seen = i_token < visible
    p_seen = visible_index_ptr + i_clip * visible + i_token
    p_hidden = decoder_index_ptr + i_clip * hidden + i_token - visible
    position = tl.load(p_seen, mask=m_row & m_seen, other=0)
    position += tl.load(p_hidden, mask=m_row & (i_token >= visible), other=0)
    p_position = positions_ptr + position.to(tl.int64)[:, None] * WIDTH + o_column[None, :]
    b_position = tl.load(p_position, mask=m_tile, other=0.0).to(tl.float32)  # [BLOCK_R, BLOCK_D]
    o_visible = i_clip.to(tl.int64) * clip_stride + i_token.to(tl.int64) * row_stride  # [BLOCK_R]
    p_visible = visible_ptr + o_visible[:, None]
    b_visible = tl.load(p_visible + o_column[None, :], mask=m_tile & m_seen[:, None], other=0.0)
    b_mask = tl.load(mask_ptr + o_column, mask=m_column, other=0.0).to(tl.float32)  # [BLOCK_D]
    b_out = tl.where(m_seen[:, None], b_visible.to(tl.float32), b_mask[None, :]) + b_position
    p_out = out_ptr + i_row.to(tl.int64)[:, None] * WIDTH + o_column[None, :]
    tl.store(p_out, b_out.to(out_ptr.dtype.element_ty), mask=m_tile)


@triton.jit
def decoder_assembly_backward_kernel(
    grad_ptr,  # [B, L, D]; strides of clip and row given
    grad_visible_ptr,  # [B, V, D]
    partial_ptr,  # [PARTS, D] fp32, sums of the mask rows of each part's run of rows
    n_rows,  # B * L
    length,  # L
    visible,  # V
    rows_per_part,
    clip_stride,
    row_stride,
    WIDTH: tl.constexpr,  # D
    BLOCK_R: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    i_part = tl.program_id(0)
    o_column = tl.program_id(1) * BLOCK_D + tl.arange(0, BLOCK_D)  # [BLOCK_D]
    m_column = o_column < WIDTH
    begin = i_part * rows_per_part
    end = tl.minimum(begin + rows_per_part, n_rows)
    b_sum = tl.zeros((BLOCK_R, BLOCK_D), tl.float32)
    for start in range(0, rows_per_part, BLOCK_R):
        i_row = begin + start + tl.arange(0, BLOCK_R)  # [BLOCK_R]
        m_tile = (i_row < end)[:, None] & m_column[None, :]
        i_clip = i_row // length
        i_token = i_row % length
        m_seen = (i_token < visible)[:, None]
        o_grad = i_clip.to(tl.int64) * clip_stride + i_token.to(tl.int64) * row_stride  # [BLOCK_R]
        p_grad = grad_ptr + o_grad[:, None]
        b_grad = tl.load(p_grad + o_column[None, :], mask=m_tile, other=0.0)  # [BLOCK_R, BLOCK_D]
        o_visible = (i_clip * visible + i_token).to(tl.int64) * WIDTH
        p_visible = grad_visible_ptr + o_visible[:, None]
        tl.store(p_visible + o_column[None, :], b_grad, mask=m_tile & m_seen)
        b_sum += tl.where(m_seen, 0.0, b_grad.to(tl.float32))
    p_partial = partial_ptr + i_part * WIDTH + o_column
    tl.store(p_partial, tl.sum(b_sum, axis=0), mask=m_column)


def _block_d(width: int) -> int:
    return min(power_of_2(width), LAUNCH.columns)


def decoder_assembly(args: Arguments) -> Tensor:
    """The decoder's input [B, V + M, D], dtype of `visible`, added in fp32.

    Rows of `visible` may lie anywhere; it is copied first if its columns are not adjacent, and so
    is each of the others if it is not contiguous.
    """
    visible = args.visible
    (b, v, d), m = visible.shape, args.decoder_index.shape[1]
    out = torch.empty((b, v + m, d), dtype=visible.dtype, device=visible.device)
    if out.numel() == 0:
        return out
    if visible.stride(2) != 1:
        visible = visible.contiguous()
    rows, block_d = b * (v + m), _block_d(d)
    with torch.cuda.device_of(visible):
        decoder_assembly_kernel[(cdiv(rows, LAUNCH.rows), cdiv(d, block_d))](
            visible,
            args.mask_token.contiguous(),
            args.positions.contiguous(),
            args.visible_index.contiguous(),
            args.decoder_index.contiguous(),
            out,
            rows,
            v,
            m,
            visible.stride(0),
            visible.stride(1),
            WIDTH=d,
            BLOCK_R=LAUNCH.rows,
            BLOCK_D=block_d,
            num_warps=LAUNCH.num_warps,
            num_stages=LAUNCH.num_stages,
        )
    return out


def decoder_assembly_backward(args: Arguments) -> tuple[Tensor, Tensor]:
    """Gradients of the visible tokens [B, V, D] and, in `dtype`, of the mask token [D].

    Clips and rows of `grad` may lie anywhere (an expanded one is read in place); it is copied first
    if its columns are not adjacent.
    """
    grad, seen = args.grad, args.visible_tokens
    b, length, d = grad.shape
    grad_visible = torch.empty((b, seen, d), dtype=grad.dtype, device=grad.device)
    grad_mask = torch.empty((d,), dtype=args.dtype, device=grad.device)
    if grad.stride(2) != 1:
        grad = grad.contiguous()
    rows, block_d = b * length, _block_d(d)
    # Whole tiles per part, as many parts as fit below the limit
    most = max(1, LAUNCH.programs // cdiv(d, block_d))
    rows_per_part = cdiv(cdiv(rows, most), LAUNCH.rows) * LAUNCH.rows
    parts = cdiv(rows, rows_per_part) if rows else 0
    partial = torch.empty((parts, d), dtype=torch.float32, device=grad.device)
    with torch.cuda.device_of(grad):
        if parts:
            decoder_assembly_backward_kernel[(parts, cdiv(d, block_d))](
                grad,
                grad_visible,
                partial,
                rows,
                length,
                seen,
                rows_per_part,
                grad.stride(0),
                grad.stride(1),
                WIDTH=d,
                BLOCK_R=LAUNCH.rows,
                BLOCK_D=block_d,
                num_warps=LAUNCH.num_warps,
                num_stages=LAUNCH.num_stages,
            )
        sum_columns(partial[None], [grad_mask])
    return grad_visible, grad_mask
