"""What torch's flop counter has to know of our ops; importing this tells it.

``import videomae_fast.ops.flop_formulas`` before ``torch.utils.flop_counter.FlopCounterMode``. The
package itself doesn't, since the counter imports Triton, which takes a while and settles for the
whole process whether kernels are interpreted.
"""

from __future__ import annotations

from math import prod
from typing import Any

import torch
from torch.utils.flop_counter import register_flop_formula

import videomae_fast.ops  # noqa: F401  (registers the ops)


@register_flop_formula(torch.ops.videomae_fast.linear)
def linear_flop(x: Any, weight: Any, *_: Any, **__: Any) -> int:
    """Of shapes: x [..., in], weight [out, in]."""
    return int(2 * prod(x[:-1]) * weight[0] * weight[1])


@register_flop_formula(torch.ops.videomae_fast.linear_backward)
def linear_backward_flop(grad: Any, x: Any, weight: Any, needs_x: bool, *_: Any, **__: Any) -> int:
    """Of shapes: the weight's gradient, and x's where it is wanted."""
    return linear_flop(x, weight) * (2 if needs_x else 1)


@register_flop_formula(torch.ops.videomae_fast.fp8_linear)
def fp8_linear_flop(x: Any, values: Any, scale: Any, weight: Any, *_: Any, **__: Any) -> int:
    """Of shapes, as a product of bf16 has them."""
    return linear_flop(x, weight)


@register_flop_formula(torch.ops.videomae_fast.fp8_linear_backward)
def fp8_linear_backward_flop(
    grad: Any, x: Any, weight: Any, needs_x: bool, *_: Any, **__: Any
) -> int:
    """Of shapes: the weight's gradient, and x's where it is wanted."""
    return linear_flop(x, weight) * (2 if needs_x else 1)


@register_flop_formula(torch.ops.videomae_fast.gelu_mlp)
def gelu_mlp_flop(x: Any, first: Any, *others: Any, **_: Any) -> int:
    """Of shapes: x [..., in], first [hidden, in], and second [out, hidden] behind the bias."""
    second = others[1]
    return int(2 * prod(x[:-1]) * first[0] * (first[1] + second[0]))


@register_flop_formula(torch.ops.videomae_fast.gelu_mlp_backward)
def gelu_mlp_backward_flop(grad: Any, *others: Any, **_: Any) -> int:
    """Of shapes: two products of each layer."""
    return 2 * gelu_mlp_flop(*others)


@register_flop_formula(torch.ops.videomae_fast.attention)
def attention_flop(query: Any, key: Any, *_: Any, **__: Any) -> int:
    """Of shapes: query [B, Nq, heads, head dim], key [B, Nk, heads, head dim]; two products."""
    return int(4 * prod(query) * key[1])


@register_flop_formula(torch.ops.videomae_fast.attention_backward)
def attention_backward_flop(grad: Any, query: Any, key: Any, *_: Any, **__: Any) -> int:
    """Of shapes: five products, the scores' again among them, as torch counts its own."""
    return attention_flop(query, key) * 5 // 2


@register_flop_formula(torch.ops.videomae_fast.packed_attention)
def packed_attention_flop(packed: Any, query: Any, *_: Any, **__: Any) -> int:
    """Of shapes: packed [B, N, 3 or 2, heads, head dim], query [B, K, heads, head dim] or None."""
    key = (*packed[:2], *packed[3:])
    return attention_flop(key if query is None else query, key)


@register_flop_formula(torch.ops.videomae_fast.packed_attention_backward)
def packed_attention_backward_flop(grad: Any, packed: Any, query: Any, *_: Any, **__: Any) -> int:
    """Of shapes: five products."""
    return packed_attention_flop(packed, query) * 5 // 2
