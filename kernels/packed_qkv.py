"""One buffer of queries, keys and values: its bias, and its gradient from three.

The Triton attention writes its gradients into one buffer and sums what biases need itself. Other
libraries' attention leaves three gradients: `_join` brings them together and sums those of queries
and values in the same pass. See docs/kernels/attention.md.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from videomae_fast.arguments import Arguments
from videomae_fast.kernels.alignment import alignment
from videomae_fast.kernels.columns import sum_columns
from videomae_fast.kernels.host import cdiv, power_of_2
from videomae_fast.kernels.occupancy import assumed_registers, programs_at_once


@dataclass(frozen=True)
class Launch:
    """How the kernels are launched. Modelled, not yet measured on a GPU.

    Attributes:
        rows: of a tile of a head's values: 16 values per lane for heads of 64, two accesses of 16
            bytes in flight.
        bias: columns of a program that lays out the bias.
    """

    num_warps: int = 4
    rows: int = 32
    bias: int = 1024


LAUNCH = Launch()


@triton.jit
def _bias(
    q_ptr,  # [n_cols] or None
    v_ptr,  # [n_cols]
    out_ptr,  # [3 n_cols], without q [2 n_cols]
    n_cols,
    COLUMNS: tl.constexpr,
):
    o_col = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    m_col = o_col < n_cols
    dtype = out_ptr.dtype.element_ty
    if q_ptr is not None:
        tl.store(out_ptr + o_col, tl.load(q_ptr + o_col, mask=m_col).to(dtype), mask=m_col)
        out_ptr += n_cols
    tl.store(out_ptr + o_col, tl.zeros([COLUMNS], dtype), mask=m_col)
    tl.store(out_ptr + n_cols + o_col, tl.load(v_ptr + o_col, mask=m_col).to(dtype), mask=m_col)


@triton.jit
def _part(
    in_ptr,  # [B, n_tokens, heads, DIM], strides given
    out_ptr,  # [B, n_tokens, parts, heads, DIM], contiguous
    sums_ptr,  # [n_runs, heads, DIM], fp32, or None
    i_run,
    i_head,
    n_rows,  # B n_tokens
    n_tokens,
    heads,
    n_run,  # rows of a program
    stride_clip, stride_token, stride_head,
    ROWS: tl.constexpr,
    DIM: tl.constexpr,
    COLUMNS: tl.constexpr,
    SLOT: tl.constexpr,  # which part of out; -1: none
    PARTS: tl.constexpr,
    ALIGN: tl.constexpr,
):  # fmt: skip
    o_col = tl.arange(0, COLUMNS)
    m_col = o_col < DIM
    b_sum = tl.zeros([ROWS, COLUMNS], tl.float32)
    i_start = i_run * n_run
    i_end = tl.minimum(i_start + n_run, n_rows)
    for i_tile in range(i_start, i_end, ROWS):
        i_row = i_tile + tl.arange(0, ROWS)
        m_block = (i_row < i_end)[:, None] & m_col[None, :]
        o_row = (i_row // n_tokens).to(tl.int64) * stride_clip
        o_row += (i_row % n_tokens).to(tl.int64) * stride_token + i_head.to(tl.int64) * stride_head
        o_row = tl.multiple_of(o_row, ALIGN)
        b_in = tl.load(in_ptr + o_row[:, None] + o_col[None, :], mask=m_block, other=0.0)
        b_sum += b_in.to(tl.float32)
        if SLOT >= 0:
            o_out = ((i_row.to(tl.int64) * PARTS + SLOT) * heads + i_head) * DIM
            tl.store(out_ptr + o_out[:, None] + o_col[None, :], b_in, mask=m_block)
    if sums_ptr is not None:
        o_sums = (i_run.to(tl.int64) * heads + i_head) * DIM + o_col
        tl.store(sums_ptr + o_sums, tl.sum(b_sum, 0), mask=m_col)


@triton.jit
def _join(
    query_ptr,  # [B, n_queries, heads, DIM], strides given
    key_ptr,  # [B, n_keys, heads, DIM], strides given
    value_ptr,  # [B, n_keys, heads, DIM], strides given
    out_ptr,  # [B, n_keys, 3, heads, DIM], or 2 without queries; contiguous
    query_sums_ptr,  # [n_runs, heads, DIM], fp32, or None
    value_sums_ptr,  # [n_runs, heads, DIM], fp32, or None
    n_query_rows,  # B n_queries
    n_key_rows,  # B n_keys
    n_queries,
    n_keys,
    heads,
    n_run,  # rows of a program
    query_stride_clip, query_stride_token, query_stride_head,
    key_stride_clip, key_stride_token, key_stride_head,
    value_stride_clip, value_stride_token, value_stride_head,
    ROWS: tl.constexpr,
    DIM: tl.constexpr,
    COLUMNS: tl.constexpr,  # the next power of two
    APART: tl.constexpr,  # the queries' gradient is no part of out, and only summed
    ALIGN: tl.constexpr,  # of all strides
):  # fmt: skip
    first: tl.constexpr = -1 if APART else 0
    i_run, i_head = tl.program_id(0) // heads, tl.program_id(0) % heads
    if tl.program_id(1) == 0:
        if not APART or query_sums_ptr is not None:
            _part(
                query_ptr, out_ptr, query_sums_ptr, i_run, i_head,
                n_query_rows, n_queries, heads, n_run,
                query_stride_clip, query_stride_token, query_stride_head,
                ROWS, DIM, COLUMNS, first, 3, ALIGN,
            )  # fmt: skip
    elif tl.program_id(1) == 1:
        _part(
            key_ptr, out_ptr, None, i_run, i_head, n_key_rows, n_keys, heads, n_run,
            key_stride_clip, key_stride_token, key_stride_head,
            ROWS, DIM, COLUMNS, first + 1, first + 3, ALIGN,
        )  # fmt: skip
    else:
        _part(
            value_ptr, out_ptr, value_sums_ptr, i_run, i_head, n_key_rows, n_keys, heads, n_run,
            value_stride_clip, value_stride_token, value_stride_head,
            ROWS, DIM, COLUMNS, first + 2, first + 3, ALIGN,
        )  # fmt: skip


def bias(args: Arguments) -> Tensor:
    """[q_bias, 0, v_bias] in `dtype`; without q_bias the last two."""
    v_bias, q_bias = args.v_bias, args.q_bias
    width = v_bias.shape[0]
    parts = 2 if q_bias is None else 3
    out = torch.empty(parts * width, dtype=args.dtype, device=v_bias.device)
    columns = min(LAUNCH.bias, power_of_2(width))
    with torch.cuda.device_of(v_bias):
        _bias[(cdiv(width, columns),)](
            None if q_bias is None else q_bias.contiguous(),
            v_bias.contiguous(),
            out,
            width,
            COLUMNS=columns,
            num_warps=LAUNCH.num_warps,
        )
    return out


def join(args: Arguments) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of the packed tensor and of both biases; see ops/packed_attention.py."""
    gradients = (args.grad_query, args.grad_key, args.grad_value)
    clips, queries, heads, dim = args.grad_query.shape
    keys = args.grad_key.shape[1]
    shape = (clips, keys, 2 if args.apart else 3, heads, dim)
    out = torch.empty(shape, dtype=args.grad_key.dtype, device=args.grad_key.device)
    biases = (args.q_bias, args.v_bias)
    found = [out.new_empty(0) if one is None else torch.empty_like(one) for one in biases]
    if out.numel() == 0:
        return out, found[0].zero_(), found[1].zero_()
    inputs = [x if x.stride(-1) == 1 else x.contiguous() for x in gradients]
    rows = (clips * queries, clips * keys)
    strides = [stride for x in inputs for stride in x.stride()[:3]]
    constants = {
        "ROWS": LAUNCH.rows,
        "DIM": dim,
        "COLUMNS": power_of_2(dim),
        "APART": args.apart,
        "ALIGN": alignment(dim, *strides),
    }
    wanted = [one is not None for one in biases]
    with torch.cuda.device_of(out):
        types = [torch.float32 if one else None for one in wanted]
        sizes = (*rows, queries, keys, heads)
        most = programs_at_once(
            _join,
            (*inputs, out, *types, *sizes, LAUNCH.rows, *strides),
            constants,
            LAUNCH.num_warps,
            out.device,
            assumed_registers("packed_qkv"),
        )
        tiles = cdiv(max(rows), LAUNCH.rows)
        run = cdiv(tiles, min(tiles, max(1, most // (3 * heads)))) * LAUNCH.rows
        runs = cdiv(max(rows), run)
        partial = [
            torch.empty((1, runs, heads * dim), dtype=torch.float32, device=out.device)
            if one
            else None
            for one in wanted
        ]
        _join[(runs * heads, 3)](
            *inputs, out, *partial, *sizes, run, *strides, **constants, num_warps=LAUNCH.num_warps
        )
        for sums, grad_bias in zip(partial, found, strict=True):
            if sums is not None:
                sum_columns(sums, [grad_bias])
    return out, found[0], found[1]
