"""Blocks of rows of a head, for the attention kernels.

A head dim that is no power of two is cut into two parts that are (80 = 64 + 16, 88 < 64 + 32), so
that little is computed for nothing: a block is a tuple of one or two tensors.
"""

# Tuples of blocks grow in the kernels: a name changes its type.
# mypy: disable-error-code="assignment"

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import triton
import triton.language as tl

from videomae_fast.kernels.host import power_of_2

LOG2E = tl.constexpr(1.4426950408889634)


@dataclass(frozen=True)
class Launch:
    """Sizes of the blocks of queries and of keys; those of heads up to 64 timed on an H100."""

    queries: int
    keys: int
    num_warps: int
    num_stages: int


@cache
def pieces(size: int, *, most: int = 128, least: int = 16) -> tuple[tuple[int, int], ...]:
    """Cuts a size into powers of two from `least` to `most`: ((start, size of the piece), ...).

    Two pieces as large as the next power of two are that one instead.
    """
    cut: list[tuple[int, int]] = []
    start = 0
    while start < size:
        rest = size - start
        power = min(most, max(least, 1 << (rest.bit_length() - 1)))
        if power < rest and power < most:
            left = max(least, power_of_2(rest - power))
            power = 2 * power if left == power else power
        cut.append((start, power))
        start += power
    return tuple(cut)


@cache
def head_parts(dim: int) -> tuple[int, int]:
    """(DIM_A, DIM_B) of a head dim: powers of two, at least 16 as matrix products want; or 0."""
    first = max(16, 1 << (dim.bit_length() - 1))
    rest = dim - first
    if rest <= 0:
        return first, 0
    second = max(16, power_of_2(rest))
    return (first, second) if second < first else (2 * first, 0)


@triton.jit
def head_offset(i_clip, i_head, clip_stride, head_stride, ALIGN: tl.constexpr):
    """Where a head of a clip begins; ALIGN is what both strides are multiples of."""
    o_head = i_clip.to(tl.int64) * clip_stride + i_head * head_stride
    if ALIGN < 16:  # of 16 the compiler knows
        o_head = tl.multiple_of(o_head, ALIGN)
    return o_head


@triton.jit
def head_pointer(p, i_clip, i_head, clip_stride, head_stride, ALIGN: tl.constexpr):
    return p + head_offset(i_clip, i_head, clip_stride, head_stride, ALIGN)


@triton.jit
def load_parts(
    p, o_row, m_row, DIM: tl.constexpr, DIM_A: tl.constexpr, DIM_B: tl.constexpr, DOT: tl.constexpr
):
    """Rows of a head, cut into one or two parts: ([ROWS, DIM_A], [ROWS, DIM_B]) in dtype DOT."""
    o_a = tl.arange(0, DIM_A)
    m_a = m_row[:, None]
    if DIM < DIM_A:
        m_a = m_a & (o_a < DIM)[None, :]
    b_parts = (tl.load(p + o_row[:, None] + o_a[None, :], mask=m_a, other=0.0).to(DOT),)
    if DIM_B > 0:
        o_b = DIM_A + tl.arange(0, DIM_B)
        m_b = m_row[:, None]
        if DIM < DIM_A + DIM_B:
            m_b = m_b & (o_b < DIM)[None, :]
        b_rest = tl.load(p + o_row[:, None] + o_b[None, :], mask=m_b, other=0.0).to(DOT)
        b_parts = b_parts + (b_rest,)  # noqa: RUF005 - what Triton's language has
    return b_parts


@triton.jit
def store_parts(
    p, o_row, m_row, b_parts, DIM: tl.constexpr, DIM_A: tl.constexpr, DIM_B: tl.constexpr
):
    """The inverse of `_load`."""
    o_a = tl.arange(0, DIM_A)
    m_a = m_row[:, None] & (o_a < DIM)[None, :]
    tl.store(p + o_row[:, None] + o_a[None, :], b_parts[0].to(p.dtype.element_ty), mask=m_a)
    if DIM_B > 0:
        o_b = DIM_A + tl.arange(0, DIM_B)
        m_b = m_row[:, None] & (o_b < DIM)[None, :]
        tl.store(p + o_row[:, None] + o_b[None, :], b_parts[1].to(p.dtype.element_ty), mask=m_b)


@triton.jit
def store_sums(p, b_parts, DIM: tl.constexpr, DIM_A: tl.constexpr, DIM_B: tl.constexpr):
    """The sums over the rows of a block in parts, to DIM fp32 values; rows past the end are 0."""
    o_a = tl.arange(0, DIM_A)
    tl.store(p + o_a, tl.sum(b_parts[0].to(tl.float32), 0), mask=o_a < DIM)
    if DIM_B > 0:
        o_b = DIM_A + tl.arange(0, DIM_B)
        tl.store(p + o_b, tl.sum(b_parts[1].to(tl.float32), 0), mask=o_b < DIM)


@triton.jit
def zeros_parts(ROWS: tl.constexpr, DIM_A: tl.constexpr, DIM_B: tl.constexpr):
    b_parts = (tl.zeros([ROWS, DIM_A], tl.float32),)
    if DIM_B > 0:
        b_parts = b_parts + (tl.zeros([ROWS, DIM_B], tl.float32),)  # noqa: RUF005
    return b_parts


@triton.jit
def inner_parts(b_x, b_y, DIM_B: tl.constexpr, PRECISION: tl.constexpr):
    """x yᵀ of two blocks in parts: [ROWS of x, ROWS of y], fp32."""
    b_out = tl.dot(b_x[0], tl.trans(b_y[0]), input_precision=PRECISION)
    if DIM_B > 0:
        b_out = tl.dot(b_x[1], tl.trans(b_y[1]), b_out, input_precision=PRECISION)
    return b_out


@triton.jit
def outer_parts(b_sum, b_x, b_parts, DIM_B: tl.constexpr, PRECISION: tl.constexpr):
    """`b_sum` + x times a block in parts, in parts."""
    b_new = (tl.dot(b_x, b_parts[0], b_sum[0], input_precision=PRECISION),)
    if DIM_B > 0:
        b_rest = tl.dot(b_x, b_parts[1], b_sum[1], input_precision=PRECISION)
        b_new = b_new + (b_rest,)  # noqa: RUF005
    return b_new


@triton.jit
def scaled_parts(b_parts, b_factor, DIM_B: tl.constexpr):
    """A block in parts, each row times its factor [ROWS]."""
    b_new = (b_parts[0] * b_factor[:, None],)
    if DIM_B > 0:
        b_new = b_new + (b_parts[1] * b_factor[:, None],)  # noqa: RUF005
    return b_new


@triton.jit
def row_sums_parts(b_x, b_y, DIM_B: tl.constexpr):
    """Sum over the head dim of x y, two blocks in parts: [ROWS], fp32."""
    b_out = tl.sum(b_x[0].to(tl.float32) * b_y[0].to(tl.float32), 1)
    if DIM_B > 0:
        b_out += tl.sum(b_x[1].to(tl.float32) * b_y[1].to(tl.float32), 1)
    return b_out


@triton.jit
def query_gradient(
    p_grad,  # [n_queries, DIM], rows grad_stride apart, as all of one clip and head
    p_query,  # [n_queries, DIM]
    p_key,  # [n_keys, DIM]
    p_value,  # [n_keys, DIM]
    p_out,  # [n_queries, DIM]
    out_stride,
    p_lse,  # [n_queries], fp32
    p_delta,  # [n_queries], fp32; written
    i_query,  # [QUERIES]
    n_queries,
    n_keys,
    grad_stride, query_stride, key_stride, value_stride,
    scale,
    QUERIES: tl.constexpr,
    KEYS: tl.constexpr,
    DIM: tl.constexpr, DIM_A: tl.constexpr, DIM_B: tl.constexpr,
    DOT: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """The gradient of a block of queries, in parts; leaves delta, the sum of grad times out."""
    m_query = i_query < n_queries
    b_query = load_parts(p_query, i_query * query_stride, m_query, DIM, DIM_A, DIM_B, DOT)
    b_grad = load_parts(p_grad, i_query * grad_stride, m_query, DIM, DIM_A, DIM_B, DOT)
    b_out = load_parts(p_out, i_query * out_stride, m_query, DIM, DIM_A, DIM_B, DOT)
    b_delta = row_sums_parts(b_grad, b_out, DIM_B)
    tl.store(p_delta + i_query, b_delta, mask=m_query)
    # Queries past the end get weight exp2(-inf) = 0.
    b_lse = tl.load(p_lse + i_query, mask=m_query, other=float("inf")) * LOG2E
    b_sum = zeros_parts(QUERIES, DIM_A, DIM_B)
    for i_start in range(0, n_keys, KEYS):
        i_key = i_start + tl.arange(0, KEYS)
        m_key = i_key < n_keys
        b_key = load_parts(p_key, i_key * key_stride, m_key, DIM, DIM_A, DIM_B, DOT)
        b_value = load_parts(p_value, i_key * value_stride, m_key, DIM, DIM_A, DIM_B, DOT)
        b_score = inner_parts(b_query, b_key, DIM_B, PRECISION)  # [QUERIES, KEYS]
        b_weight = tl.exp2(b_score * scale - b_lse[:, None])
        b_weight = tl.where(m_key[None, :], b_weight, 0.0)
        b_grad_weight = inner_parts(b_grad, b_value, DIM_B, PRECISION)
        b_grad_score = b_weight * (b_grad_weight - b_delta[:, None])
        b_sum = outer_parts(b_sum, b_grad_score.to(DOT), b_key, DIM_B, PRECISION)
    b_scale = tl.full([QUERIES], 1.0, tl.float32) * (scale / LOG2E)
    return scaled_parts(b_sum, b_scale, DIM_B)


@triton.jit
def key_gradients(
    p_grad,  # [n_queries, DIM], rows grad_stride apart, as all of one clip and head
    p_query,  # [n_queries, DIM]
    p_key,  # [n_keys, DIM]
    p_value,  # [n_keys, DIM]
    p_lse,  # [n_queries], fp32
    p_delta,  # [n_queries], fp32
    i_key,  # [KEYS]
    n_queries,
    n_keys,
    grad_stride, query_stride, key_stride, value_stride,
    scale,
    QUERIES: tl.constexpr,
    KEYS: tl.constexpr,
    DIM: tl.constexpr, DIM_A: tl.constexpr, DIM_B: tl.constexpr,
    DOT: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """(gradient of a block of keys, of its values), in parts; 0 from key `n_keys` on.

    Scores are computed transposed: weights are then the left factor of both products with them.
    """
    m_key = i_key < n_keys
    b_key = load_parts(p_key, i_key * key_stride, m_key, DIM, DIM_A, DIM_B, DOT)
    b_value = load_parts(p_value, i_key * value_stride, m_key, DIM, DIM_A, DIM_B, DOT)
    b_grad_key = zeros_parts(KEYS, DIM_A, DIM_B)
    b_grad_value = zeros_parts(KEYS, DIM_A, DIM_B)
    for i_start in range(0, n_queries, QUERIES):
        i_query = i_start + tl.arange(0, QUERIES)
        m_query = i_query < n_queries
        b_query = load_parts(p_query, i_query * query_stride, m_query, DIM, DIM_A, DIM_B, DOT)
        b_grad = load_parts(p_grad, i_query * grad_stride, m_query, DIM, DIM_A, DIM_B, DOT)
        b_lse = tl.load(p_lse + i_query, mask=m_query, other=float("inf")) * LOG2E
        b_delta = tl.load(p_delta + i_query, mask=m_query, other=0.0)
        b_score = inner_parts(b_key, b_query, DIM_B, PRECISION)  # [KEYS, QUERIES]
        b_weight = tl.exp2(b_score * scale - b_lse[None, :])
        b_weight = tl.where(m_key[:, None], b_weight, 0.0)
        b_grad_value = outer_parts(b_grad_value, b_weight.to(DOT), b_grad, DIM_B, PRECISION)
        b_grad_weight = inner_parts(b_value, b_grad, DIM_B, PRECISION)
        b_grad_score = b_weight * (b_grad_weight - b_delta[None, :])
        b_grad_key = outer_parts(b_grad_key, b_grad_score.to(DOT), b_query, DIM_B, PRECISION)
    b_scale = tl.full([KEYS], 1.0, tl.float32) * (scale / LOG2E)
    return scaled_parts(b_grad_key, b_scale, DIM_B), b_grad_value
