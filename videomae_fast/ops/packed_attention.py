"""Softmax attention of queries, keys and values that one matmul made, with one gradient of them.

The gradients of the three parts lie where the matmul's backward wants them, in one buffer, and are
summed for the biases by the pass that makes them: no concatenation, no second reading.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from videomae_fast.ops._declare import Gradient, declare, native, triton
from videomae_fast.ops._native import heads, in_fp32
from videomae_fast.ops.attention import (
    ATTENTION,
    attention_backward_reference,
    attention_reference,
    check_heads,
    check_key_count,
)
from videomae_fast.ops.packed_qkv import join_gradients, summed
from videomae_fast.ops.registry import FP32_BF16


def packed_attention(
    packed: Tensor,
    *,
    query: Tensor | None = None,
    q_bias: Tensor | None = None,
    v_bias: Tensor | None = None,
    key_count: Tensor | None = None,
    impl: str = "auto",
) -> Tensor:
    """:func:`videomae_fast.ops.attention` of one tensor's queries, keys and values.

    Args:
        packed: [B, N, 3, heads, head dim]: queries, keys, values; with `query`
            [B, N, 2, heads, head dim]: keys and values.
        query: [B, K, heads, head dim], where other tokens ask; None: all.
        q_bias: [heads * head dim], or None: a bias that `packed` or `query` holds already, added
            without autograd's knowledge (see :func:`videomae_fast.ops.packed_bias`). It changes no
            value here; it is given its gradient, the sum of that of queries over clips and tokens.
        v_bias: [heads * head dim], or None: likewise, of values.
        key_count: int32 [B] or None: as in attention.
        impl: as in attention, whose table and policy hold. "triton", "native" and "reference"
            write one gradient and the sums themselves; every other library leaves three gradients,
            which one pass copies together and sums.

    Returns:
        [B, N or K, heads, head dim], dtype of `packed`.

    Raises:
        ValueError: wrong shapes.
        BackendUnavailableError: `impl` can't run here.
    """
    parts = 3 if query is None else 2
    if packed.ndim != 5 or packed.shape[2] != parts:
        raise ValueError(
            f"packed must be [B, N, {parts}, heads, head dim], got {list(packed.shape)}"
        )
    views = _views(packed, query)
    check_heads(*views)
    if key_count is not None:
        check_key_count(key_count, views[1])
    width = packed.shape[3] * packed.shape[4]
    for bias in (q_bias, v_bias):
        if bias is not None and bias.shape != (width,):
            raise ValueError(f"q_bias and v_bias must be [{width}], got {list(bias.shape)}")
    name = ATTENTION.serving(impl, (*views, key_count))
    if name in _PACKED.op.backends or name == "auto":
        own: Tensor = _PACKED(name, packed, query, q_bias, v_bias, key_count)[0]
        return own
    views = _Split.apply(packed, query, q_bias, v_bias)  # type: ignore[no-untyped-call]
    out: Tensor = ATTENTION.op.backends[name].run(*views, key_count)
    return out


class _Split(Function):
    """Queries, keys and values as views of what holds them; backward brings gradients together."""

    @staticmethod
    def forward(
        packed: Tensor, query: Tensor | None, q_bias: Tensor | None, v_bias: Tensor | None
    ) -> tuple[Tensor, ...]:
        if query is None:
            return packed.unbind(2)
        return (query.view_as(query), *packed.unbind(2))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        _, query, q_bias, v_bias = inputs
        ctx.apart = query is not None
        ctx.save_for_backward(q_bias, v_bias)

    @staticmethod
    def backward(
        ctx: Any, grad_query: Tensor, grad_key: Tensor, grad_value: Tensor
    ) -> tuple[Tensor | None, ...]:
        needs = ctx.needs_input_grad
        q_bias, v_bias = (
            bias if needed else None
            for bias, needed in zip(ctx.saved_tensors, needs[2:], strict=True)
        )
        packed, grad_q, grad_v = join_gradients(
            grad_query, grad_key, grad_value, q_bias, v_bias, ctx.apart
        )
        return (
            packed,
            grad_query if needs[1] else None,
            None if q_bias is None else grad_q,
            None if v_bias is None else grad_v,
        )


def _views(packed: Tensor, query: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values."""
    first, second, *third = packed.unbind(2)
    return (first, second, third[0]) if query is None else (query, first, second)


def _forward_reference(
    packed: Tensor,
    query: Tensor | None,
    q_bias: Tensor | None,
    v_bias: Tensor | None,
    key_count: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """(output [B, Nq, heads, head dim], log-sum-exp [B, heads, Nq] for the backward)."""
    return attention_reference(*_views(packed, query), key_count)


def _backward_reference(
    grad: Tensor,
    packed: Tensor,
    query: Tensor | None,
    q_bias: Tensor | None,
    v_bias: Tensor | None,
    key_count: Tensor | None,
    out: Tensor,
    lse: Tensor,
    needs_q_bias: bool,
    needs_v_bias: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of packed, query and both biases; empty where there is none or not needed."""
    saved = (grad, *_views(packed, query), key_count, out, lse)
    grad_query, grad_key, grad_value = attention_backward_reference(*saved)
    parts = (grad_key, grad_value) if query is not None else (grad_query, grad_key, grad_value)
    return (
        torch.stack(parts, 2),
        packed.new_empty(0) if query is None else grad_query,
        summed(grad_query, q_bias, needs_q_bias),
        summed(grad_value, v_bias, needs_v_bias),
    )


def _native_unfit(key_count: Tensor | None) -> str | None:
    if key_count is not None and key_count.dtype != torch.int32:
        return f"the native library takes int32 for key_count, not {key_count.dtype}"
    return None


def _triton_unfit(packed: Tensor, query: Tensor | None) -> str | None:
    if query is not None and query.dtype != packed.dtype:
        return f"query is {query.dtype}, keys and values are {packed.dtype}"
    if packed.shape[-1] > 256:
        return f"the Triton kernels take head dims up to 256, not {packed.shape[-1]}"
    return None


_PACKED = declare(
    "packed_attention",
    _forward_reference,
    native=native(
        in_fp32(heads.packed_attention, "packed", None), dtypes=FP32_BF16, unfit=_native_unfit
    ),
    triton=triton("packed_attention", "forward", unfit=_triton_unfit),
    gradient=Gradient(
        _backward_reference,
        of=("packed", "query", "q_bias", "v_bias"),
        backends={
            "triton": triton("packed_attention", "backward", unfit=_triton_unfit),
            "native": native(
                in_fp32(
                    heads.packed_attention_backward,
                    "packed",
                    "query or packed",
                    "q_bias or packed",
                    "v_bias or packed",
                ),
                dtypes=FP32_BF16,
                unfit=_native_unfit,
            ),
        },
        results=("out", "lse"),
    ),
)
