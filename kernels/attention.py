"""Softmax attention on strided, token-major views: the launchers of two families of kernels.

Short sequences (the encoder) go to attention_short.py, all others to attention_flash.py. See
docs/kernels/attention.md.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from videomae_fast.arguments import Arguments
from videomae_fast.kernels import attention_flash as flash
from videomae_fast.kernels import attention_short as short
from videomae_fast.kernels import one_pass_attention
from videomae_fast.kernels.alignment import alignment
from videomae_fast.kernels.head_blocks import head_parts
from videomae_fast.kernels.host import cdiv

MAX_HEAD_DIM = 256
FARTHEST = 2**31 - 1  # values between the first and another of a clip: 32 bits in the kernels
INTERPRETED = not isinstance(flash.flash_forward, triton.JITFunction)
_DOT = {torch.float32: tl.float32, torch.bfloat16: tl.bfloat16, torch.float16: tl.float16}


def is_short(query: Tensor, key: Tensor) -> bool:
    """Whether a whole sequence of keys and values fits on chip."""
    longest = max(query.shape[1], key.shape[1])
    dim = sum(head_parts(query.shape[3]))
    return query.element_size() == 2 and longest <= short.LONGEST and dim <= 96


def _dense(x: Tensor) -> Tensor:
    """The view [B, N, heads, head dim] as the kernels can read it, or a copy.

    They want the values of a head side by side, and a clip's tokens and heads within reach of 32
    bits: those of a sequence-first batch may be farther apart.

    Raises:
        ValueError: a clip has so many values that a copy of it is out of reach, too.
    """
    clip = x.shape[1:]
    if clip.numel() > FARTHEST:
        raise ValueError(
            f"attention: a clip has {clip.numel()} values ({clip[0]} tokens of {clip[1]} heads of "
            f'{clip[2]}), and the Triton kernels reach {FARTHEST}; impl="sdpa" takes it'
        )
    tokens, heads = (
        (count - 1) * stride for count, stride in zip(clip[:2], x.stride()[1:3], strict=True)
    )
    near = max(tokens, heads) + clip[2] <= FARTHEST
    return x if near and x.stride(-1) == 1 else x.contiguous()


def _strides(name: str, x: Tensor) -> dict[str, int]:
    clip, token, head, _ = x.stride()
    return {f"{name}_stride_clip": clip, f"{name}_stride_token": token, f"{name}_stride_head": head}


def _align(arguments: dict[str, Any]) -> int:
    """Of the strides of clips and heads among a kernel's arguments: see head_pointer."""
    ends = ("_stride_clip", "_stride_head")
    return alignment(*(value for name, value in arguments.items() if name.endswith(ends)))


def _common(query: Tensor, key_count: Tensor | None) -> dict[str, Any]:
    """Arguments that all kernels have."""
    # The interpreter's bf16 products are wrong; tf32x3 is fp32 but for the last bits.
    dot = torch.float32 if INTERPRETED else query.dtype
    return {
        "count_ptr": key_count,
        "heads": query.shape[2],
        "scale": math.log2(math.e) * query.shape[3] ** -0.5,
        "DOT": _DOT[dot],
        "PRECISION": "tf32x3" if dot == torch.float32 else "ieee",
    }


Heads = tuple[Tensor, Tensor, Tensor]
"""Queries [B, Nq, heads, head dim], keys and values [B, Nk, heads, head dim]."""


def _refuse_single(query: Tensor) -> None:
    """Raises ValueError where the short sequences' kernels would compute in fp32 on a GPU."""
    if query.element_size() != 2 and not INTERPRETED:
        raise ValueError(
            f"attention: the short sequences' kernels take 16-bit values on a GPU, not "
            f"{query.dtype}: with heads in two parts their results are wrong"
        )


def forward(args: Arguments, *, use_short: bool | None = None) -> tuple[Tensor, Tensor]:
    """(output [B, Nq, heads, head dim], log-sum-exp fp32 [B, heads, Nq]); see ops/attention.py."""
    return forward_of((args.query, args.key, args.value), args.key_count, use_short=use_short)


def forward_of(
    heads: Heads, key_count: Tensor | None, *, use_short: bool | None = None
) -> tuple[Tensor, Tensor]:
    query, key, value = heads
    if use_short is None:
        use_short = is_short(query, key)
    if use_short:
        _refuse_single(query)
    clips, queries, count, dim = query.shape
    keys = key.shape[1]
    out = torch.empty(query.shape, dtype=query.dtype, device=query.device)
    lse = torch.empty((clips, count, queries), dtype=torch.float32, device=query.device)
    if out.numel() == 0:
        return out, lse
    query, key, value = _dense(query), _dense(key), _dense(value)
    arguments = {
        "query_ptr": query,
        "key_ptr": key,
        "value_ptr": value,
        "out_ptr": out,
        "lse_ptr": lse,
        "n_queries": queries,
        **_common(query, key_count),
        **_strides("query", query),
        **_strides("key", key),
        **_strides("value", value),
    }
    arguments["ALIGN"] = _align(arguments)
    if use_short:
        alone = short.forward_launch(dim)
        with torch.cuda.device_of(query):
            short.short_forward[(clips * count,)](
                **arguments,
                **short.forward_shape(keys, dim),
                num_warps=alone.num_warps,
                num_stages=alone.num_stages,
            )
    else:
        launch, _, _ = flash.launches(dim, query.element_size())
        with torch.cuda.device_of(query):
            flash.flash_forward[(clips * count * cdiv(queries, launch.queries),)](
                **arguments,
                n_keys=keys,
                **flash.shape(dim, launch, query.element_size()),
                num_warps=launch.num_warps,
                num_stages=launch.num_stages,
            )
    return out, lse


def backward(args: Arguments, *, use_short: bool | None = None) -> Heads:
    """Gradients of query, key and value, contiguous; see ops/attention.py."""
    heads = (args.query, args.key, args.value)
    into = Into(*(torch.empty(x.shape, dtype=x.dtype, device=x.device) for x in heads))
    if use_short is None:
        use_short = is_short(args.query, args.key)
    backward_into(args, heads, into, use_short=use_short)
    return into.query, into.key, into.value


class Into(NamedTuple):
    """Where backward writes.

    Attributes:
        query, key, value: the gradients; keys and values with the same strides, the values of a
            head side by side.
        query_sums, value_sums: fp32 [blocks of queries, heads * head dim] or None: the gradients of
            queries and of the output, summed over each block's queries. The latter's total is that
            of the values' gradients, since the weights of a query sum to 1.
    """

    query: Tensor
    key: Tensor
    value: Tensor
    query_sums: Tensor | None = None
    value_sums: Tensor | None = None


def backward_into(args: Arguments, heads: Heads, into: Into, *, use_short: bool) -> None:
    """`args` has the output's gradient, `key_count` and what forward gave; heads lie apart here."""
    query, key, value = heads
    if use_short:
        _refuse_single(query)
    clips, queries, count, dim = query.shape
    keys = key.shape[1]
    grad_query, grad_key, grad_value, query_sums, value_sums = into
    if grad_query.numel() == 0:
        grad_key.zero_()
        grad_value.zero_()
        return
    grad, query, key, value = _dense(args.grad), _dense(query), _dense(key), _dense(value)
    lse = args.lse.contiguous()
    arguments = {
        "grad_ptr": grad,
        "query_ptr": query,
        "key_ptr": key,
        "value_ptr": value,
        "lse_ptr": lse,
        **_common(query, args.key_count),
        **_strides("grad", grad),
        **_strides("query", query),
        **_strides("key", key),
        **_strides("value", value),
    }
    of_query = {
        "out_ptr": args.out.contiguous(),
        "grad_query_ptr": grad_query,
        "query_sums_ptr": query_sums,
        "value_sums_ptr": value_sums,
        **_strides("grad_query", grad_query),
    }
    of_key = {
        "grad_key_ptr": grad_key,
        "grad_value_ptr": grad_value,
        **_strides("grad_key", grad_key),
    }
    arguments["ALIGN"] = _align({**arguments, **of_query, **of_key})
    if use_short:
        _short_backward(arguments | of_query | of_key, clips, queries, keys, dim)
        return
    _, by_query, by_key = flash.launches(dim, query.element_size())
    delta = torch.empty_like(lse)
    arguments |= {"n_queries": queries, "n_keys": keys, "delta_ptr": delta}
    with torch.cuda.device_of(query):
        flash.flash_backward_query[(clips * count * cdiv(queries, by_query.queries),)](
            **arguments,
            **of_query,
            **flash.shape(dim, by_query, query.element_size()),
            num_warps=by_query.num_warps,
            num_stages=by_query.num_stages,
        )
        flash.flash_backward_key[(clips * count * cdiv(keys, by_key.keys),)](
            **arguments,
            **of_key,
            **flash.shape(dim, by_key, query.element_size()),
            num_warps=by_key.num_warps,
            num_stages=by_key.num_stages,
        )


def _short_backward(
    arguments: dict[str, Any], clips: int, queries: int, keys: int, dim: int
) -> None:
    """In one pass or in two: kernels/attention_short.py says."""
    grid = (clips * arguments["heads"],)
    query = arguments["query_ptr"]
    with torch.cuda.device_of(query):
        if launch := short.one_pass(dim, query.device):
            one_pass_attention.one_pass_backward[grid](
                **arguments,
                **one_pass_attention.shape(launch, queries, keys, dim),
                num_warps=launch.num_warps,
                num_stages=launch.num_stages,
            )
        else:
            two = short.backward_launch(dim)
            short.short_backward[grid](
                **arguments,
                delta_ptr=torch.empty_like(arguments["lse_ptr"]),
                **short.backward_shape(queries, keys, dim),
                num_warps=two.num_warps,
                num_stages=two.num_stages,
            )
