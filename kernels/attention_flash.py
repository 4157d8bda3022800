"""Attention of sequences of any length: a running softmax, blocks of queries against steps of keys.

Backward is two kernels, a program per block of queries for their gradient, a program per block of
keys for theirs and that of the values: no atomics. The first leaves what the second needs.
"""

from __future__ import annotations

from typing import Any

import triton
import triton.language as tl

from videomae_fast.kernels.head_blocks import (
    LOG2E,
    Launch,
    head_offset,
    head_parts,
    head_pointer,
    inner_parts,
    key_gradients,
    load_parts,
    outer_parts,
    query_gradient,
    scaled_parts,
    store_parts,
    store_sums,
    zeros_parts,
)

# Forward, backward of queries, backward of keys. Two matrix instructions' rows in the outer block;
# two or three inner steps in flight. None of these spills, on sm_80 to sm_100.
NARROW = (
    Launch(queries=64, keys=64, num_warps=4, num_stages=3),
    Launch(queries=128, keys=64, num_warps=8, num_stages=2),
    Launch(queries=32, keys=128, num_warps=8, num_stages=2),
)
# Heads of 65 to 96: shorter steps.
MIDDLE = (
    Launch(queries=128, keys=32, num_warps=8, num_stages=2),
    Launch(queries=128, keys=32, num_warps=8, num_stages=2),
    Launch(queries=32, keys=128, num_warps=8, num_stages=2),
)
# fp32 of wider heads than 64 (ViT-H, ViT-g): larger blocks spill.
SMALLEST = (Launch(queries=16, keys=16, num_warps=4, num_stages=2),) * 3
# Other fp32, and wider heads, which no official size has.
SMALL = (
    Launch(queries=16, keys=32, num_warps=4, num_stages=2),
    Launch(queries=32, keys=32, num_warps=4, num_stages=2),
    Launch(queries=16, keys=32, num_warps=4, num_stages=2),
)


@triton.jit
def _attend(
    b_query, b_out, b_max, b_sum, p_key, p_value, i_start, n_keys, key_stride, value_stride, scale,
    KEYS: tl.constexpr,
    DIM: tl.constexpr, DIM_A: tl.constexpr, DIM_B: tl.constexpr,
    DOT: tl.constexpr,
    PRECISION: tl.constexpr,
    LAST: tl.constexpr,  # the step holds keys that take no part
):  # fmt: skip
    """One step of keys: the new (output before division, maximum, sum)."""
    i_key = i_start + tl.arange(0, KEYS)
    m_key = i_key < n_keys
    b_key = load_parts(p_key, i_key * key_stride, m_key, DIM, DIM_A, DIM_B, DOT)
    b_value = load_parts(p_value, i_key * value_stride, m_key, DIM, DIM_A, DIM_B, DOT)
    b_score = inner_parts(b_query, b_key, DIM_B, PRECISION) * scale  # [QUERIES, KEYS]
    if LAST:
        b_score = tl.where(m_key[None, :], b_score, float("-inf"))
    b_new_max = tl.maximum(b_max, tl.max(b_score, 1))
    b_weight = tl.exp2(b_score - b_new_max[:, None])
    b_rescale = tl.exp2(b_max - b_new_max)
    b_sum = b_sum * b_rescale + tl.sum(b_weight, 1)
    b_out = scaled_parts(b_out, b_rescale, DIM_B)
    b_out = outer_parts(b_out, b_weight.to(DOT), b_value, DIM_B, PRECISION)
    return b_out, b_new_max, b_sum


@triton.jit
def flash_forward(
    query_ptr,  # [B, n_queries, heads, DIM], strides given
    key_ptr,  # [B, n_keys, heads, DIM], strides given
    value_ptr,  # [B, n_keys, heads, DIM], strides given
    count_ptr,  # [B] int32, or None
    out_ptr,  # [B, n_queries, heads, DIM]
    lse_ptr,  # [B, heads, n_queries], fp32
    n_queries,
    n_keys,
    heads,
    query_stride_clip, query_stride_token, query_stride_head,
    key_stride_clip, key_stride_token, key_stride_head,
    value_stride_clip, value_stride_token, value_stride_head,
    scale,  # log2(e) / sqrt(DIM)
    QUERIES: tl.constexpr,
    KEYS: tl.constexpr,
    DIM: tl.constexpr, DIM_A: tl.constexpr, DIM_B: tl.constexpr,
    DOT: tl.constexpr,
    PRECISION: tl.constexpr,
    ALIGN: tl.constexpr,  # of all strides of clips and heads
):  # fmt: skip
    n_blocks = tl.cdiv(n_queries, QUERIES)
    i_clip, i_head = tl.program_id(0) // n_blocks // heads, tl.program_id(0) // n_blocks % heads
    i_query = tl.program_id(0) % n_blocks * QUERIES + tl.arange(0, QUERIES)
    m_query = i_query < n_queries
    o_clip = i_clip.to(tl.int64)
    if count_ptr is not None:
        n_keys = tl.minimum(tl.load(count_ptr + i_clip), n_keys)
    p_query = head_pointer(query_ptr, i_clip, i_head, query_stride_clip, query_stride_head, ALIGN)
    p_key = head_pointer(key_ptr, i_clip, i_head, key_stride_clip, key_stride_head, ALIGN)
    p_value = head_pointer(value_ptr, i_clip, i_head, value_stride_clip, value_stride_head, ALIGN)
    b_query = load_parts(p_query, i_query * query_stride_token, m_query, DIM, DIM_A, DIM_B, DOT)
    b_out = zeros_parts(QUERIES, DIM_A, DIM_B)
    b_max = tl.full([QUERIES], float("-inf"), tl.float32)
    b_sum = tl.zeros([QUERIES], tl.float32)
    n_whole = n_keys // KEYS * KEYS
    for i_start in range(0, n_whole, KEYS):
        b_out, b_max, b_sum = _attend(
            b_query, b_out, b_max, b_sum, p_key, p_value, i_start, n_whole,
            key_stride_token, value_stride_token, scale,
            KEYS, DIM, DIM_A, DIM_B, DOT, PRECISION, LAST=False,
        )  # fmt: skip
    if n_whole < n_keys:
        b_out, b_max, b_sum = _attend(
            b_query, b_out, b_max, b_sum, p_key, p_value, n_whole, n_keys,
            key_stride_token, value_stride_token, scale,
            KEYS, DIM, DIM_A, DIM_B, DOT, PRECISION, LAST=True,
        )  # fmt: skip
    b_out = scaled_parts(b_out, 1.0 / b_sum, DIM_B)
    p_out = out_ptr + (o_clip * n_queries * heads + i_head) * DIM
    store_parts(p_out, i_query * (heads * DIM), m_query, b_out, DIM, DIM_A, DIM_B)
    p_lse = lse_ptr + (o_clip * heads + i_head) * n_queries
    tl.store(p_lse + i_query, (b_max + tl.log2(b_sum)) / LOG2E, mask=m_query)


@triton.jit
def flash_backward_query(
    grad_ptr,  # [B, n_queries, heads, DIM], strides given
    query_ptr,  # [B, n_queries, heads, DIM], strides given
    key_ptr,  # [B, n_keys, heads, DIM], strides given
    value_ptr,  # [B, n_keys, heads, DIM], strides given
    count_ptr,  # [B] int32, or None
    out_ptr,  # [B, n_queries, heads, DIM]
    lse_ptr,  # [B, heads, n_queries], fp32
    delta_ptr,  # [B, heads, n_queries], fp32, written: sum of grad times out
    grad_query_ptr,  # [B, n_queries, heads, DIM], strides given
    query_sums_ptr,  # [B, blocks of queries, heads, DIM], fp32, or None: sums over their tokens
    value_sums_ptr,  # likewise: sums of grad, which those of the values' gradients are
    n_queries,
    n_keys,
    heads,
    grad_stride_clip, grad_stride_token, grad_stride_head,
    query_stride_clip, query_stride_token, query_stride_head,
    key_stride_clip, key_stride_token, key_stride_head,
    value_stride_clip, value_stride_token, value_stride_head,
    grad_query_stride_clip, grad_query_stride_token, grad_query_stride_head,
    scale,  # log2(e) / sqrt(DIM)
    QUERIES: tl.constexpr,
    KEYS: tl.constexpr,
    DIM: tl.constexpr, DIM_A: tl.constexpr, DIM_B: tl.constexpr,
    DOT: tl.constexpr,
    PRECISION: tl.constexpr,
    ALIGN: tl.constexpr,  # of all strides of clips and heads
):  # fmt: skip
    n_blocks = tl.cdiv(n_queries, QUERIES)
    i_clip, i_head = tl.program_id(0) // n_blocks // heads, tl.program_id(0) // n_blocks % heads
    i_query = tl.program_id(0) % n_blocks * QUERIES + tl.arange(0, QUERIES)
    o_clip = i_clip.to(tl.int64)
    if count_ptr is not None:
        n_keys = tl.minimum(tl.load(count_ptr + i_clip), n_keys)
    o_rows = (o_clip * heads + i_head) * n_queries
    b_grad_query = query_gradient(
        head_pointer(grad_ptr, i_clip, i_head, grad_stride_clip, grad_stride_head, ALIGN),
        head_pointer(query_ptr, i_clip, i_head, query_stride_clip, query_stride_head, ALIGN),
        head_pointer(key_ptr, i_clip, i_head, key_stride_clip, key_stride_head, ALIGN),
        head_pointer(value_ptr, i_clip, i_head, value_stride_clip, value_stride_head, ALIGN),
        out_ptr + (o_clip * n_queries * heads + i_head) * DIM,
        heads * DIM, lse_ptr + o_rows, delta_ptr + o_rows, i_query, n_queries, n_keys,
        grad_stride_token, query_stride_token, key_stride_token, value_stride_token,
        scale, QUERIES, KEYS, DIM, DIM_A, DIM_B, DOT, PRECISION,
    )  # fmt: skip
    o_grad_query = head_offset(
        i_clip, i_head, grad_query_stride_clip, grad_query_stride_head, ALIGN
    )
    o_query = i_query * grad_query_stride_token
    store_parts(
        grad_query_ptr + o_grad_query, o_query, i_query < n_queries, b_grad_query, DIM, DIM_A, DIM_B
    )
    o_sums = ((o_clip * n_blocks + tl.program_id(0) % n_blocks) * heads + i_head) * DIM
    if query_sums_ptr is not None:
        store_sums(query_sums_ptr + o_sums, b_grad_query, DIM, DIM_A, DIM_B)
    if value_sums_ptr is not None:
        p_grad = head_pointer(grad_ptr, i_clip, i_head, grad_stride_clip, grad_stride_head, ALIGN)
        o_grad = i_query * grad_stride_token
        b_grad = load_parts(p_grad, o_grad, i_query < n_queries, DIM, DIM_A, DIM_B, DOT)
        store_sums(value_sums_ptr + o_sums, b_grad, DIM, DIM_A, DIM_B)


@triton.jit
def flash_backward_key(
    grad_ptr,  # [B, n_queries, heads, DIM], strides given
    query_ptr,  # [B, n_queries, heads, DIM], strides given
    key_ptr,  # [B, n_keys, heads, DIM], strides given
    value_ptr,  # [B, n_keys, heads, DIM], strides given
    count_ptr,  # [B] int32, or None
    lse_ptr,  # [B, heads, n_queries], fp32
    delta_ptr,  # [B, heads, n_queries], fp32
    grad_key_ptr,  # [B, n_keys, heads, DIM], strides given
    grad_value_ptr,  # [B, n_keys, heads, DIM], strides as of grad_key
    n_queries,
    n_keys,
    heads,
    grad_stride_clip, grad_stride_token, grad_stride_head,
    query_stride_clip, query_stride_token, query_stride_head,
    key_stride_clip, key_stride_token, key_stride_head,
    value_stride_clip, value_stride_token, value_stride_head,
    grad_key_stride_clip, grad_key_stride_token, grad_key_stride_head,
    scale,  # log2(e) / sqrt(DIM)
    QUERIES: tl.constexpr,
    KEYS: tl.constexpr,
    DIM: tl.constexpr, DIM_A: tl.constexpr, DIM_B: tl.constexpr,
    DOT: tl.constexpr,
    PRECISION: tl.constexpr,
    ALIGN: tl.constexpr,  # of all strides of clips and heads
):  # fmt: skip
    n_blocks = tl.cdiv(n_keys, KEYS)
    i_clip, i_head = tl.program_id(0) // n_blocks // heads, tl.program_id(0) // n_blocks % heads
    i_key = tl.program_id(0) % n_blocks * KEYS + tl.arange(0, KEYS)
    o_clip = i_clip.to(tl.int64)
    n_counted = n_keys
    if count_ptr is not None:
        n_counted = tl.minimum(tl.load(count_ptr + i_clip), n_keys)
    o_rows = (o_clip * heads + i_head) * n_queries
    # A block that takes no part walks over no query: its gradients are 0.
    n_asking = tl.where(tl.program_id(0) % n_blocks * KEYS < n_counted, n_queries, 0)
    b_grad_key, b_grad_value = key_gradients(
        head_pointer(grad_ptr, i_clip, i_head, grad_stride_clip, grad_stride_head, ALIGN),
        head_pointer(query_ptr, i_clip, i_head, query_stride_clip, query_stride_head, ALIGN),
        head_pointer(key_ptr, i_clip, i_head, key_stride_clip, key_stride_head, ALIGN),
        head_pointer(value_ptr, i_clip, i_head, value_stride_clip, value_stride_head, ALIGN),
        lse_ptr + o_rows, delta_ptr + o_rows, i_key, n_asking, n_counted,
        grad_stride_token, query_stride_token, key_stride_token, value_stride_token,
        scale, QUERIES, KEYS, DIM, DIM_A, DIM_B, DOT, PRECISION,
    )  # fmt: skip
    o_grad_key = head_offset(i_clip, i_head, grad_key_stride_clip, grad_key_stride_head, ALIGN)
    o_key = i_key * grad_key_stride_token
    m_key = i_key < n_keys
    store_parts(grad_key_ptr + o_grad_key, o_key, m_key, b_grad_key, DIM, DIM_A, DIM_B)
    store_parts(grad_value_ptr + o_grad_key, o_key, m_key, b_grad_value, DIM, DIM_A, DIM_B)


def launches(dim: int, itemsize: int) -> tuple[Launch, Launch, Launch]:
    """Of forward and of the two kernels of backward."""
    width = sum(head_parts(dim))
    if itemsize > 2:
        return SMALL if width <= 64 else SMALLEST
    if width > 96:
        return SMALL
    return NARROW if width <= 64 else MIDDLE


def shape(dim: int, launch: Launch, itemsize: int) -> dict[str, Any]:
    """The constants of a kernel that follow from the head dim and the launch.

    Of fp32 heads the second part is 32 wide at least: with 16, heads of 80 spill 384 bytes in the
    backward of keys, and 32 to 1,480 in ten other forms; with 32 they need 215 registers.
    """
    first, second = head_parts(dim)
    if itemsize > 2 and second > 0:
        second = max(second, 32)
    blocks = {"QUERIES": launch.queries, "KEYS": launch.keys}
    return {"DIM": dim, "DIM_A": first, "DIM_B": second, **blocks}
