"""Attention of short sequences: a program per clip and head, keys and values on chip.

Forward needs no running softmax. Backward makes all three gradients in one program: here first
those of the queries, then those of keys and values, and everything is read from memory once (the
second time it comes from cache); or in one pass, one_pass_attention.py. No atomics.
"""

# Tuples of blocks grow in the kernels: a name changes its type.
# mypy: disable-error-code="assignment"

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
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
    pieces,
    query_gradient,
    scaled_parts,
    store_parts,
    store_sums,
    zeros_parts,
)
from videomae_fast.kernels.one_pass_attention import OnePass

# The longest sequence that this is for: ViT-g's 208 visible tokens.
LONGEST = 208


@dataclass(frozen=True)
class ShortForward:
    """A launch of forward.

    Attributes:
        queries: a block; 64 are one warp group's matrix instruction, 4 warps.
        most, least: sizes of the pieces of keys, which are there all at once.
        num_warps, num_stages: as everywhere.
        lean: whether a block computes its addresses itself, which leaves registers free: 2 programs
            of 8 warps at heads of 64 and 80, instead of 1.
    """

    queries: int = 64
    most: int = 128
    least: int = 16
    num_warps: int = 4
    num_stages: int = 1
    lean: bool = False

    @property
    def name(self) -> str:
        """For tables."""
        return (
            f"{self.queries} queries, pieces of {self.most} to {self.least} keys, "
            f"{self.num_warps} warps, {self.num_stages} stages{', lean' * self.lean}"
        )


# By the widest head (in parts) that it is for; and what was not timed yet. None of them spills on
# sm_90.
FORWARD: dict[int, ShortForward] = {
    64: ShortForward(),
    80: ShortForward(),
    96: ShortForward(num_stages=2, lean=True),
}
FORWARD_LAUNCHES: dict[int, tuple[ShortForward, ...]] = {
    64: (
        ShortForward(),
        ShortForward(lean=True),
        ShortForward(num_stages=2),
        ShortForward(num_stages=2, lean=True),
        ShortForward(queries=128, num_warps=8, lean=True),
        ShortForward(queries=128, num_warps=8, num_stages=2, lean=True),
        ShortForward(queries=128, num_warps=4),
    ),
    80: (
        ShortForward(),
        ShortForward(lean=True),
        ShortForward(num_stages=2, lean=True),
        ShortForward(queries=128, num_warps=8, lean=True),
        ShortForward(queries=128, num_warps=8, num_stages=2, lean=True),
        ShortForward(most=64, lean=True),
    ),
    96: (
        ShortForward(),
        ShortForward(lean=True),
        ShortForward(num_stages=2, lean=True),
        ShortForward(least=64, lean=True),
        ShortForward(most=256, least=256),
        ShortForward(queries=128, num_warps=8, lean=True),
        ShortForward(queries=128, num_warps=8, least=64),
        ShortForward(most=64, lean=True),
    ),
}

# Backward in one pass, by the widest head (in parts) that it is for, the fastest first, as
# timed on an H100. With one stage and 32 keys heads of 64 came out wrong there. On
# sm_90 none spills in its loop; some keep 2 to 8 registers in memory from before it until after.
ONE_PASS_LAUNCHES: dict[int, tuple[OnePass, ...]] = {
    64: (
        OnePass(queries=64, least=64, keys=32, num_warps=4, num_stages=3),
        OnePass(queries=64, least=64, keys=32, num_warps=4, num_stages=2),
        OnePass(queries=64, least=32, keys=32, num_warps=4, num_stages=2),
        OnePass(queries=64, least=64, keys=64, num_warps=4, num_stages=1),
        OnePass(queries=128, least=32, keys=32, num_warps=8, num_stages=2),
        OnePass(queries=128, least=32, keys=64, num_warps=8, num_stages=2),
    ),
    80: (
        OnePass(queries=64, least=32, keys=32, num_warps=4, num_stages=2),
        OnePass(queries=64, least=32, keys=32, num_warps=4, num_stages=1),
        OnePass(queries=128, least=32, keys=32, num_warps=8, num_stages=2, second=64),
        OnePass(queries=128, least=32, keys=32, num_warps=8, num_stages=1, second=64),
        OnePass(queries=128, least=32, keys=32, num_warps=8, num_stages=2),
    ),
    96: (
        OnePass(queries=256, least=256, keys=32, num_warps=8, num_stages=2, second=64),
        OnePass(queries=256, least=256, keys=32, num_warps=8, num_stages=1, second=64),
        OnePass(queries=256, least=256, keys=16, num_warps=8, num_stages=2, second=64),
        OnePass(queries=256, least=256, keys=16, num_warps=16, num_stages=2, second=64),
        OnePass(queries=256, least=256, keys=16, num_warps=16, num_stages=1, second=64),
        OnePass(queries=256, least=256, keys=16, num_warps=16, num_stages=2),
        OnePass(queries=256, least=256, keys=16, num_warps=8, num_stages=2),
    ),
}
# Which of them serve, {width: ONE_PASS_LAUNCHES[width][0]}; the others' gradients take two passes.
ONE_PASS: dict[int, OnePass] = {width: those[0] for width, those in ONE_PASS_LAUNCHES.items()}


def widest(dim: int) -> int:
    """The key of the tables for heads of `dim`; the last for wider ones, which run untuned."""
    width = sum(head_parts(dim))
    return next((most for most in FORWARD if width <= most), max(FORWARD))


def forward_launch(dim: int) -> ShortForward:
    return FORWARD[widest(dim)]


def one_pass(dim: int, device: torch.device) -> OnePass | None:
    """The launch of backward in one pass; None: two passes.

    On a GPU one pass is for compute capability 9: with the instructions of others it takes more
    registers, and for heads of 88 more shared memory than there is.
    """
    if sum(head_parts(dim)) > max(FORWARD):
        return None
    if device.type == "cuda" and torch.cuda.get_device_capability(device)[0] != 9:
        return None
    return ONE_PASS.get(widest(dim))


def backward_blocks(queries: int, dim: int, device: torch.device) -> int:
    """How many rows of sums backward leaves of a clip and head."""
    if one_pass(dim, device):
        return 1
    return len(pieces(queries, most=backward_launch(dim).keys))


def backward_launch(dim: int) -> Launch:
    """Of two passes.

    `keys`: the largest outer block, of keys or queries; `queries`: the inner loops' step. The
    largest with which nothing spills from sm_80 to sm_100: see tests/kernels/aot.py.
    """
    width = sum(head_parts(dim))
    most, step = (128, 32) if width <= 64 else (64, 16) if width <= 80 else (128, 16)
    return Launch(queries=step, keys=most, num_warps=8, num_stages=2)


@triton.jit
def short_forward(
    query_ptr,  # [B, n_queries, heads, DIM], strides given
    key_ptr,  # [B, N_KEYS, heads, DIM], strides given
    value_ptr,  # [B, N_KEYS, heads, DIM], strides given
    count_ptr,  # [B] int32, or None
    out_ptr,  # [B, n_queries, heads, DIM]
    lse_ptr,  # [B, heads, n_queries], fp32
    n_queries,
    heads,
    query_stride_clip, query_stride_token, query_stride_head,
    key_stride_clip, key_stride_token, key_stride_head,
    value_stride_clip, value_stride_token, value_stride_head,
    scale,  # log2(e) / sqrt(DIM)
    N_KEYS: tl.constexpr,
    PIECES: tl.constexpr,  # (start, size) of the blocks of keys
    DIM: tl.constexpr, DIM_A: tl.constexpr, DIM_B: tl.constexpr,
    QUERIES: tl.constexpr,
    LEAN: tl.constexpr,
    DOT: tl.constexpr,
    PRECISION: tl.constexpr,
    ALIGN: tl.constexpr,  # of all strides of clips and heads
):  # fmt: skip
    i_clip, i_head = tl.program_id(0) // heads, tl.program_id(0) % heads
    o_clip = i_clip.to(tl.int64)
    n_keys = N_KEYS
    if count_ptr is not None:
        n_keys = tl.minimum(tl.load(count_ptr + i_clip), N_KEYS)
    p_query = head_pointer(query_ptr, i_clip, i_head, query_stride_clip, query_stride_head, ALIGN)
    p_key = head_pointer(key_ptr, i_clip, i_head, key_stride_clip, key_stride_head, ALIGN)
    p_value = head_pointer(value_ptr, i_clip, i_head, value_stride_clip, value_stride_head, ALIGN)
    p_out = out_ptr + (o_clip * n_queries * heads + i_head) * DIM
    p_lse = lse_ptr + (o_clip * heads + i_head) * n_queries
    b_keys = ()
    b_values = ()
    for i in tl.static_range(len(PIECES)):
        i_key = PIECES[i][0] + tl.arange(0, PIECES[i][1])
        b_key = load_parts(p_key, i_key * key_stride_token, i_key < N_KEYS, DIM, DIM_A, DIM_B, DOT)
        b_value = load_parts(
            p_value, i_key * value_stride_token, i_key < N_KEYS, DIM, DIM_A, DIM_B, DOT
        )
        b_keys = b_keys + (b_key,)  # noqa: RUF005 - what Triton's language has
        b_values = b_values + (b_value,)  # noqa: RUF005

    for i_start in tl.range(0, n_queries, QUERIES, disable_licm=LEAN):
        i_query = i_start + tl.arange(0, QUERIES)
        m_query = i_query < n_queries
        b_query = load_parts(p_query, i_query * query_stride_token, m_query, DIM, DIM_A, DIM_B, DOT)
        b_scores = ()
        b_max = tl.full([QUERIES], float("-inf"), tl.float32)
        for i in tl.static_range(len(PIECES)):
            b_score = inner_parts(b_query, b_keys[i], DIM_B, PRECISION)  # [QUERIES, PIECES[i]]
            if PIECES[i][0] + PIECES[i][1] > N_KEYS or count_ptr is not None:
                m_key = PIECES[i][0] + tl.arange(0, PIECES[i][1]) < n_keys
                b_score = tl.where(m_key[None, :], b_score, float("-inf"))
            b_max = tl.maximum(b_max, tl.max(b_score, 1))
            b_scores = b_scores + (b_score,)  # noqa: RUF005
        b_max *= scale
        b_sum = tl.zeros([QUERIES], tl.float32)
        b_out = zeros_parts(QUERIES, DIM_A, DIM_B)
        for i in tl.static_range(len(PIECES)):
            b_weight = tl.exp2(b_scores[i] * scale - b_max[:, None])
            b_sum += tl.sum(b_weight, 1)
            b_out = outer_parts(b_out, b_weight.to(DOT), b_values[i], DIM_B, PRECISION)
        b_out = scaled_parts(b_out, 1.0 / b_sum, DIM_B)
        store_parts(p_out, i_query * (heads * DIM), m_query, b_out, DIM, DIM_A, DIM_B)
        tl.store(p_lse + i_query, (b_max + tl.log2(b_sum)) / LOG2E, mask=m_query)


@triton.jit
def short_backward(
    grad_ptr,  # [B, N_QUERIES, heads, DIM], strides given
    query_ptr,  # [B, N_QUERIES, heads, DIM], strides given
    key_ptr,  # [B, N_KEYS, heads, DIM], strides given
    value_ptr,  # [B, N_KEYS, heads, DIM], strides given
    count_ptr,  # [B] int32, or None
    out_ptr,  # [B, N_QUERIES, heads, DIM]
    lse_ptr,  # [B, heads, N_QUERIES], fp32
    delta_ptr,  # [B, heads, N_QUERIES], fp32, scratch: sum of grad times out
    grad_query_ptr,  # [B, N_QUERIES, heads, DIM], strides given
    grad_key_ptr,  # [B, N_KEYS, heads, DIM], strides given
    grad_value_ptr,  # [B, N_KEYS, heads, DIM], strides as of grad_key
    query_sums_ptr,  # [B, blocks of queries, heads, DIM], fp32, or None: sums over their tokens
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
    QUERY_PIECES: tl.constexpr,  # (start, size) of the blocks of queries
    PIECES: tl.constexpr,  # (start, size) of the blocks of keys
    STEP: tl.constexpr,  # keys, or queries, per step of the inner loops
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
    o_grad_query = head_offset(
        i_clip, i_head, grad_query_stride_clip, grad_query_stride_head, ALIGN
    )
    o_grad_key = head_offset(i_clip, i_head, grad_key_stride_clip, grad_key_stride_head, ALIGN)
    o_rows = (o_clip * heads + i_head) * N_QUERIES

    for i in tl.static_range(len(QUERY_PIECES)):
        i_query = QUERY_PIECES[i][0] + tl.arange(0, QUERY_PIECES[i][1])
        o_sums = ((o_clip * len(QUERY_PIECES) + i) * heads + i_head) * DIM
        if value_sums_ptr is not None:
            o_grad, m_query = i_query * grad_stride_token, i_query < N_QUERIES
            b_grad = load_parts(p_grad, o_grad, m_query, DIM, DIM_A, DIM_B, DOT)
            store_sums(value_sums_ptr + o_sums, b_grad, DIM, DIM_A, DIM_B)
        b_grad_query = query_gradient(
            p_grad, p_query, p_key, p_value, p_out, heads * DIM,
            lse_ptr + o_rows, delta_ptr + o_rows, i_query, N_QUERIES, n_keys,
            grad_stride_token, query_stride_token, key_stride_token, value_stride_token,
            scale, QUERY_PIECES[i][1], STEP, DIM, DIM_A, DIM_B, DOT, PRECISION,
        )  # fmt: skip
        o_query = i_query * grad_query_stride_token
        store_parts(
            grad_query_ptr + o_grad_query,
            o_query,
            i_query < N_QUERIES,
            b_grad_query,
            DIM,
            DIM_A,
            DIM_B,
        )
        if query_sums_ptr is not None:
            store_sums(query_sums_ptr + o_sums, b_grad_query, DIM, DIM_A, DIM_B)
    # Other threads than those that wrote delta, which lies in global memory, read it: this has to
    # order global memory within the program. It becomes a bar.sync, which does; a barrier of shared
    # memory alone would not.
    tl.debug_barrier()
    for i in tl.static_range(len(PIECES)):
        i_key = PIECES[i][0] + tl.arange(0, PIECES[i][1])
        b_grad_key, b_grad_value = key_gradients(
            p_grad, p_query, p_key, p_value,
            lse_ptr + o_rows, delta_ptr + o_rows, i_key, N_QUERIES, n_keys,
            grad_stride_token, query_stride_token, key_stride_token, value_stride_token,
            scale, STEP, PIECES[i][1], DIM, DIM_A, DIM_B, DOT, PRECISION,
        )  # fmt: skip
        o_key = i_key * grad_key_stride_token
        m_key = i_key < N_KEYS
        store_parts(grad_key_ptr + o_grad_key, o_key, m_key, b_grad_key, DIM, DIM_A, DIM_B)
        store_parts(grad_value_ptr + o_grad_key, o_key, m_key, b_grad_value, DIM, DIM_A, DIM_B)


def _dims(dim: int) -> dict[str, Any]:
    first, second = head_parts(dim)
    return {"DIM": dim, "DIM_A": first, "DIM_B": second}


def forward_shape(keys: int, dim: int) -> dict[str, Any]:
    """The constants of `short_forward` that follow from the sizes."""
    launch = forward_launch(dim)
    return {
        "N_KEYS": keys,
        "PIECES": pieces(keys, most=launch.most, least=launch.least),
        "QUERIES": launch.queries,
        "LEAN": launch.lean,
        **_dims(dim),
    }


def backward_shape(queries: int, keys: int, dim: int) -> dict[str, Any]:
    """The constants of `short_backward` that follow from the sizes."""
    launch = backward_launch(dim)
    return {
        "N_QUERIES": queries,
        "N_KEYS": keys,
        "QUERY_PIECES": pieces(queries, most=launch.keys),
        "PIECES": pieces(keys, most=launch.keys),
        "STEP": launch.queries,
        **_dims(dim),
    }
