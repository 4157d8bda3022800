"""Backward of short sequences in one pass: five products, and every tensor read once.

A program per clip and head. Its queries, their output's gradients and the sums of the gradients of
queries stay on chip, a few keys at a time come along: whose gradients are then whole. No atomics.

Beside the two passes of attention_short.py, which chooses.
"""

# Tuples of blocks grow in the kernel: a name changes its type.
# mypy: disable-error-code="assignment"

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import triton
import triton.language as tl

from videomae_fast.kernels.head_blocks import (
    LOG2E,
    head_offset,
    head_parts,
    head_pointer,
    inner_parts,
    load_parts,
    outer_parts,
    pieces,
    row_sums_parts,
    scaled_parts,
    store_parts,
    zeros_parts,
)


@dataclass(frozen=True)
class OnePass:
    """A launch.

    Attributes:
        queries: the largest block of queries. A warp group's matrix instructions take 64 rows: with
            4 warps 64, with 8 warps 128, or half of the warps compute what the others do.
        least: the smallest: 32 for a rest of 32 rows by a warp's instructions, `queries` for all by
            a warp group's.
        keys: how many come along at a time.
        num_warps: of a program.
        num_stages: 2: the next keys are fetched while these are computed with.
        second: width of heads' second part, where not as narrow as can be: with 64, more is
            computed for nothing, and all of it by a warp group's instructions.
    """

    queries: int
    least: int
    keys: int
    num_warps: int
    num_stages: int
    second: int | None = None

    @property
    def name(self) -> str:
        """For tables."""
        wide = "" if self.second is None else f", second part {self.second}"
        return (
            f"one pass: {self.queries} queries (rest {self.least}), {self.keys} keys{wide}, "
            f"{self.num_warps} warps, {self.num_stages} stages"
        )


@triton.jit
def one_pass_backward(
    grad_ptr,  # [B, N_QUERIES, heads, DIM], strides given
    query_ptr,  # [B, N_QUERIES, heads, DIM], strides given
    key_ptr,  # [B, N_KEYS, heads, DIM], strides given
    value_ptr,  # [B, N_KEYS, heads, DIM], strides given
    count_ptr,  # [B] int32, or None
    out_ptr,  # [B, N_QUERIES, heads, DIM]
    lse_ptr,  # [B, heads, N_QUERIES], fp32
    grad_query_ptr,  # [B, N_QUERIES, heads, DIM], strides given
    grad_key_ptr,  # [B, N_KEYS, heads, DIM], strides given
    grad_value_ptr,  # [B, N_KEYS, heads, DIM], strides as of grad_key
    query_sums_ptr,  # [B, heads, DIM], fp32, or None: sums over the tokens of a clip
    value_sums_ptr,  # likewise: sums of grad, which those of the values' gradients are
    heads,
    grad_stride_clip, grad_stride_token, grad_stride_head,
    query_stride_clip, query_stride_token, query_stride_head,
    key_stride_clip, key_stride_token, key_stride_head,
    value_stride_clip, value_stride_token, value_stride_head,
    grad_query_stride_clip, grad_query_stride_token, grad_query_stride_head,
    grad_key_stride_clip, grad_key_stride_token, grad_key_stride_head,
    scale,  # log2(e) / sqrt(DIM)
    N_QUERIES: tl.constexpr,
    N_KEYS: tl.constexpr,
    PIECES: tl.constexpr,  # (start, size) of the blocks of queries
    KEYS: tl.constexpr,
    DIM: tl.constexpr, DIM_A: tl.constexpr, DIM_B: tl.constexpr,
    DOT: tl.constexpr,
    PRECISION: tl.constexpr,
    ALIGN: tl.constexpr,  # of all strides of clips and heads
):  # fmt: skip
    i_clip, i_head = tl.program_id(0) // heads, tl.program_id(0) % heads
    o_clip = i_clip.to(tl.int64)
    n_keys = N_KEYS
    if count_ptr is not None:
        n_keys = tl.minimum(tl.load(count_ptr + i_clip), N_KEYS)
    p_grad = head_pointer(grad_ptr, i_clip, i_head, grad_stride_clip, grad_stride_head, ALIGN)
    p_query = head_pointer(query_ptr, i_clip, i_head, query_stride_clip, query_stride_head, ALIGN)
    p_key = head_pointer(key_ptr, i_clip, i_head, key_stride_clip, key_stride_head, ALIGN)
    p_value = head_pointer(value_ptr, i_clip, i_head, value_stride_clip, value_stride_head, ALIGN)
    p_out = out_ptr + (o_clip * N_QUERIES * heads + i_head) * DIM
    p_lse = lse_ptr + (o_clip * heads + i_head) * N_QUERIES
    o_grad_query = head_offset(
        i_clip, i_head, grad_query_stride_clip, grad_query_stride_head, ALIGN
    )
    o_grad_key = head_offset(i_clip, i_head, grad_key_stride_clip, grad_key_stride_head, ALIGN)
    o_sums = (o_clip * heads + i_head) * DIM

    b_queries = ()
    b_grads = ()
    b_lses = ()
    b_deltas = ()
    b_sums = ()  # gradients of the queries, but for the scale
    for i in tl.static_range(len(PIECES)):
        i_query = PIECES[i][0] + tl.arange(0, PIECES[i][1])
        m_query = i_query < N_QUERIES
        b_query = load_parts(p_query, i_query * query_stride_token, m_query, DIM, DIM_A, DIM_B, DOT)
        b_grad = load_parts(p_grad, i_query * grad_stride_token, m_query, DIM, DIM_A, DIM_B, DOT)
        b_out = load_parts(p_out, i_query * (heads * DIM), m_query, DIM, DIM_A, DIM_B, DOT)
        # Queries past the end get weight exp2(-inf) = 0.
        b_lse = tl.load(p_lse + i_query, mask=m_query, other=float("inf")) * LOG2E
        b_queries = b_queries + (b_query,)  # noqa: RUF005 - what Triton's language has
        b_grads = b_grads + (b_grad,)  # noqa: RUF005
        b_lses = b_lses + (b_lse,)  # noqa: RUF005
        b_deltas = b_deltas + (row_sums_parts(b_grad, b_out, DIM_B),)  # noqa: RUF005
        b_sums = b_sums + (zeros_parts(PIECES[i][1], DIM_A, DIM_B),)  # noqa: RUF005
    if value_sums_ptr is not None:
        store_all_sums(value_sums_ptr + o_sums, b_grads, DIM, DIM_A, DIM_B, len(PIECES))

    # What a step needs of addresses is computed in it: kept through the loop, it takes 30 registers
    # and more, and sums spill.
    for i_start in tl.range(0, N_KEYS, KEYS, disable_licm=True):
        i_key = i_start + tl.arange(0, KEYS)
        m_key = i_key < N_KEYS
        b_key = load_parts(p_key, i_key * key_stride_token, m_key, DIM, DIM_A, DIM_B, DOT)
        b_value = load_parts(p_value, i_key * value_stride_token, m_key, DIM, DIM_A, DIM_B, DOT)
        b_grad_key = zeros_columns(KEYS, DIM_A, DIM_B)
        b_grad_value = zeros_columns(KEYS, DIM_A, DIM_B)
        b_new_sums = ()
        for i in tl.static_range(len(PIECES)):
            b_score = inner_parts(b_queries[i], b_key, DIM_B, PRECISION)  # [PIECES[i], KEYS]
            b_weight = tl.exp2(b_score * scale - b_lses[i][:, None])
            if N_KEYS % KEYS != 0 or count_ptr is not None:
                b_weight = tl.where((i_key < n_keys)[None, :], b_weight, 0.0)
            b_grad_value = add_columns(b_grad_value, b_grads[i], b_weight.to(DOT), DIM_B, PRECISION)
            b_grad_weight = inner_parts(b_grads[i], b_value, DIM_B, PRECISION)
            b_grad_score = (b_weight * (b_grad_weight - b_deltas[i][:, None])).to(DOT)
            b_sum = outer_parts(b_sums[i], b_grad_score, b_key, DIM_B, PRECISION)
            b_new_sums = b_new_sums + (b_sum,)  # noqa: RUF005
            b_grad_key = add_columns(b_grad_key, b_queries[i], b_grad_score, DIM_B, PRECISION)
        b_sums = b_new_sums
        b_scale = tl.full([KEYS], 1.0, tl.float32) * (scale / LOG2E)
        b_grad_key = scaled_parts(upright(b_grad_key, DIM_B), b_scale, DIM_B)
        o_key = i_key * grad_key_stride_token
        store_parts(grad_key_ptr + o_grad_key, o_key, m_key, b_grad_key, DIM, DIM_A, DIM_B)
        store_parts(
            grad_value_ptr + o_grad_key,
            o_key,
            m_key,
            upright(b_grad_value, DIM_B),
            DIM,
            DIM_A,
            DIM_B,
        )

    b_grad_queries = ()
    for i in tl.static_range(len(PIECES)):
        i_query = PIECES[i][0] + tl.arange(0, PIECES[i][1])
        b_scale = tl.full([PIECES[i][1]], 1.0, tl.float32) * (scale / LOG2E)
        b_grad_query = scaled_parts(b_sums[i], b_scale, DIM_B)
        b_grad_queries = b_grad_queries + (b_grad_query,)  # noqa: RUF005
        store_parts(
            grad_query_ptr + o_grad_query,
            i_query * grad_query_stride_token,
            i_query < N_QUERIES,
            b_grad_query,
            DIM,
            DIM_A,
            DIM_B,
        )
    if query_sums_ptr is not None:
        store_all_sums(query_sums_ptr + o_sums, b_grad_queries, DIM, DIM_A, DIM_B, len(PIECES))


@triton.jit
def zeros_columns(COLUMNS: tl.constexpr, DIM_A: tl.constexpr, DIM_B: tl.constexpr):
    """A block in parts that lies on its side: ([DIM_A, COLUMNS], [DIM_B, COLUMNS])."""
    b_parts = (tl.zeros([DIM_A, COLUMNS], tl.float32),)
    if DIM_B > 0:
        b_parts = b_parts + (tl.zeros([DIM_B, COLUMNS], tl.float32),)  # noqa: RUF005
    return b_parts


@triton.jit
def add_columns(b_sum, b_parts, b_y, DIM_B: tl.constexpr, PRECISION: tl.constexpr):
    """`b_sum` + (a block in parts)ᵀ y, on its side.

    The left factor then comes from shared memory as it was loaded. Upright, yᵀ would be on the
    left, and come through registers; and its rows, keys, would have to be 64.
    """
    b_new = (tl.dot(tl.trans(b_parts[0]), b_y, b_sum[0], input_precision=PRECISION),)
    if DIM_B > 0:
        b_rest = tl.dot(tl.trans(b_parts[1]), b_y, b_sum[1], input_precision=PRECISION)
        b_new = b_new + (b_rest,)  # noqa: RUF005
    return b_new


@triton.jit
def upright(b_parts, DIM_B: tl.constexpr):
    """A block in parts that lies on its side, as others are: ([ROWS, DIM_A], [ROWS, DIM_B])."""
    b_new = (tl.trans(b_parts[0]),)
    if DIM_B > 0:
        b_new = b_new + (tl.trans(b_parts[1]),)  # noqa: RUF005
    return b_new


@triton.jit
def store_all_sums(
    p, b_blocks, DIM: tl.constexpr, DIM_A: tl.constexpr, DIM_B: tl.constexpr, BLOCKS: tl.constexpr
):
    """The sums over the rows of several blocks in parts, to DIM fp32 values."""
    o_a = tl.arange(0, DIM_A)
    tl.store(p + o_a, all_sums(b_blocks, 0, BLOCKS), mask=o_a < DIM)
    if DIM_B > 0:
        o_b = DIM_A + tl.arange(0, DIM_B)
        tl.store(p + o_b, all_sums(b_blocks, 1, BLOCKS), mask=o_b < DIM)


@triton.jit
def all_sums(b_blocks, PART: tl.constexpr, BLOCKS: tl.constexpr):
    """Of one part; blocks of equal size are added up before lanes and warps exchange anything."""
    b_equal = b_blocks[0][PART].to(tl.float32)
    for i in tl.static_range(1, BLOCKS):
        if b_blocks[i][PART].shape[0] == b_blocks[0][PART].shape[0]:
            b_equal += b_blocks[i][PART].to(tl.float32)
    b_sums = tl.sum(b_equal, 0)
    for i in tl.static_range(1, BLOCKS):
        if b_blocks[i][PART].shape[0] != b_blocks[0][PART].shape[0]:
            b_sums += tl.sum(b_blocks[i][PART].to(tl.float32), 0)
    return b_sums


def shape(launch: OnePass, queries: int, keys: int, dim: int) -> dict[str, Any]:
    """The constants of `one_pass_backward` that follow from the sizes."""
    first, second = head_parts(dim)
    return {
        "N_QUERIES": queries,
        "N_KEYS": keys,
        "PIECES": pieces(queries, most=launch.queries, least=launch.least),
        "KEYS": launch.keys,
        "DIM": dim,
        "DIM_A": first,
        "DIM_B": launch.second if second and launch.second else second,
    }
