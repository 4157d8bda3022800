"""The native attention: softmax attention of packed heads, forward and backward, fp32.

Queries, keys and values may be views of one packed tensor: they are read as they lie, as long as
the last dimension is dense. Results are contiguous; no keys are a ValueError.
"""

from __future__ import annotations

import torch
from torch import Tensor

from videomae_fast.arguments import Arguments, contiguous
from videomae_fast.ops._native.calls import call

Heads = tuple[Tensor, Tensor, Tensor]
"""Queries [B, Nq, heads, head dim], keys and values [B, Nk, heads, head dim]."""


def attention(args: Arguments) -> tuple[Tensor, Tensor]:
    return _forward((args.query, args.key, args.value), args.key_count)


def attention_backward(args: Arguments) -> Heads:
    """0 for keys that take no part."""
    heads = (args.query, args.key, args.value)
    query, key, value = (torch.empty(one.shape, dtype=torch.float32) for one in heads)
    _backward(args, heads, (query, key, value), sums=(None, None))
    return query, key, value


def packed_attention(args: Arguments) -> tuple[Tensor, Tensor]:
    """The biases are for its gradients alone."""
    return _forward(_views(args.packed, args.query), args.key_count)


def packed_attention_backward(args: Arguments) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    packed, query = args.packed, args.query
    grad_packed = torch.empty(packed.shape, dtype=torch.float32)
    grad_query = None if query is None else torch.empty(query.shape, dtype=torch.float32)
    q_sum, v_sum = (
        torch.empty(bias.shape, dtype=torch.float32) if bias is not None and needed else None
        for bias, needed in ((args.q_bias, args.needs_q_bias), (args.v_bias, args.needs_v_bias))
    )
    heads, gradients = _views(packed, query), _views(grad_packed, grad_query)
    _backward(args, heads, gradients, sums=(q_sum, v_sum))
    none = packed.new_empty(0)
    of_query, of_q, of_v = (none if one is None else one for one in (grad_query, q_sum, v_sum))
    return grad_packed, of_query, of_q, of_v


def _views(packed: Tensor, query: Tensor | None) -> Heads:
    first, second, *third = packed.unbind(2)
    return (first, second, third[0]) if query is None else (query, first, second)


def _forward(heads: Heads, key_count: Tensor | None) -> tuple[Tensor, Tensor]:
    heads, sizes = _dense(heads)
    (key_count,) = contiguous(key_count)
    batch, queries, _, count, _ = sizes
    out = torch.empty(heads[0].shape, dtype=torch.float32)
    lse = torch.empty((batch, count, queries), dtype=torch.float32)
    tensors = (*heads, key_count, _strides(heads), out, lse)
    call("vmf_attention", "pppppppiiiii", *tensors, *sizes)
    return out, lse


def _backward(
    args: Arguments, heads: Heads, gradients: Heads, *, sums: tuple[Tensor | None, Tensor | None]
) -> None:
    """Writes the gradients of queries, keys and values into tensors of any strides whose last
    dimension is dense, and those of queries and values, summed over all tokens, into `sums`."""
    heads, sizes = _dense(heads)
    grad, key_count, out, lse = contiguous(args.grad, args.key_count, args.out, args.lse)
    strides = _strides(heads + gradients)
    tensors = (grad, *heads, key_count, strides, out, lse, *gradients, *sums)
    call("vmf_attention_backward", "pppppppppppppiiiii", *tensors, *sizes)


def _dense(heads: Heads) -> tuple[Heads, tuple[int, int, int, int, int]]:
    """Those whose last dimension isn't dense copied, and (B, Nq, Nk, heads, head dim)."""
    query, key, value = (
        one if one.shape[-1] == 1 or one.stride(-1) == 1 else one.contiguous() for one in heads
    )
    batch, queries, count, dim = query.shape
    return (query, key, value), (batch, queries, key.shape[1], count, dim)


def _strides(tensors: tuple[Tensor, ...]) -> Tensor:
    """Of clips, tokens and heads, int64 [tensors, 3]."""
    return torch.tensor([one.stride()[:3] for one in tensors])
