"""The native attention: softmax attention of packed heads, forward and backward, fp32."""

from __future__ import annotations

import torch
from torch import Tensor

from videomae_fast.ops._native.calls import call, contiguous


def attention(
    query: Tensor, key: Tensor, value: Tensor, key_count: Tensor | None
) -> tuple[Tensor, Tensor]:
    """``softmax(query keyᵀ / sqrt(head dim)) value`` per clip and head.

    The inputs may be views of one packed tensor: they are read as they lie, as long as the last
    dimension is dense. The same bits for any thread count.

    Args:
        query: fp32 [B, Nq, heads, head dim].
        key, value: fp32 [B, Nk, heads, head dim].
        key_count: int32 [B] or None: only the first `key_count[b]` keys of a clip take part.

    Returns:
        The output, fp32 [B, Nq, heads, head dim], and the log-sum-exp of the scores, fp32
        [B, heads, Nq], both contiguous.

    Raises:
        ValueError: no keys.
    """
    query, key, value, key_count, strides, sizes = _arguments(query, key, value, key_count)
    batch, queries, _, heads, _ = sizes
    out = torch.empty(query.shape, dtype=torch.float32)
    lse = torch.empty((batch, heads, queries), dtype=torch.float32)
    call("vmf_attention", "pppppppiiiii", query, key, value, key_count, strides, out, lse, *sizes)
    return out, lse


def attention_backward(
    grad: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    key_count: Tensor | None,
    out: Tensor,
    lse: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of `attention` by query, key and value; the same bits for any thread count.

    Args:
        grad: fp32 [B, Nq, heads, head dim], of the output.
        out, lse: as `attention` returned them.
        query, key, value, key_count: as given to it.

    Returns:
        Contiguous, in the shapes of query, key and value; 0 for keys that take no part.

    Raises:
        ValueError: no keys.
    """
    gradients = tuple(torch.empty(x.shape, dtype=torch.float32) for x in (query, key, value))
    saved = (grad, query, key, value, key_count, out, lse)
    _backward(*saved, gradients=gradients, sums=(None, None))
    grad_query, grad_key, grad_value = gradients
    return grad_query, grad_key, grad_value


def packed_attention(
    packed: Tensor,
    query: Tensor | None,
    q_bias: Tensor | None,
    v_bias: Tensor | None,
    key_count: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """`attention` of what one tensor holds, fp32; the biases are for its gradients alone.

    Args:
        packed: [B, N, 3, heads, head dim], or [B, N, 2, heads, head dim] with a query of its own.
        query: [B, K, heads, head dim] or None.
    """
    return attention(*_views(packed, query), key_count)


def packed_attention_backward(
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
    """Gradients of packed, query and both biases; empty where there is none or it is not needed.

    The same bits for any thread count.
    """
    grad_packed = torch.empty(packed.shape, dtype=torch.float32)
    grad_query = None if query is None else torch.empty(query.shape, dtype=torch.float32)
    saved = (grad, *_views(packed, query), key_count, out, lse)
    q_sum, v_sum = (
        torch.empty(bias.shape, dtype=torch.float32) if bias is not None and needed else None
        for bias, needed in ((q_bias, needs_q_bias), (v_bias, needs_v_bias))
    )
    _backward(*saved, gradients=_views(grad_packed, grad_query), sums=(q_sum, v_sum))
    empty = packed.new_empty
    return (
        grad_packed,
        empty(0) if grad_query is None else grad_query,
        empty(0) if q_sum is None else q_sum,
        empty(0) if v_sum is None else v_sum,
    )


def _views(packed: Tensor, query: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values."""
    first, second, *third = packed.unbind(2)
    return (first, second, third[0]) if query is None else (query, first, second)


def _backward(
    grad: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    key_count: Tensor | None,
    out: Tensor,
    lse: Tensor,
    *,
    gradients: tuple[Tensor, ...],
    sums: tuple[Tensor | None, Tensor | None],
) -> None:
    """Writes the gradients of query, key and value into tensors of any strides whose last
    dimension is dense, and those of queries and values, summed over all tokens, into `sums`."""
    query, key, value, key_count, _, sizes = _arguments(query, key, value, key_count)
    grad, out, lse = contiguous(grad, out, lse)
    strides = torch.tensor([x.stride()[:3] for x in (query, key, value, *gradients)])
    call(
        "vmf_attention_backward",
        "pppppppppppppiiiii",
        grad,
        query,
        key,
        value,
        key_count,
        strides,
        out,
        lse,
        *gradients,
        *sums,
        *sizes,
    )


def _arguments(
    query: Tensor, key: Tensor, value: Tensor, key_count: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor | None, Tensor, tuple[int, int, int, int, int]]:
    """The tensors, their strides int64 [3, 3] and (B, Nq, Nk, heads, head dim)."""
    query, key, value = map(_dense, (query, key, value))
    (key_count,) = contiguous(key_count)
    strides = torch.tensor([x.stride()[:3] for x in (query, key, value)])
    batch, queries, heads, dim = query.shape
    return query, key, value, key_count, strides, (batch, queries, key.shape[1], heads, dim)


def _dense(tensor: Tensor) -> Tensor:
    """The tensor, its last dimension dense; copied only where it isn't."""
    return tensor if tensor.shape[-1] == 1 or tensor.stride(-1) == 1 else tensor.contiguous()
