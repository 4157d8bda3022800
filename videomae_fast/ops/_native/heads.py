"""The native attention: softmax attention of packed heads, forward and backward, fp32."""

from __future__ import annotations

import torch
from torch import Tensor

from videomae_fast.ops._native.calls import call, expect


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
        ValueError: wrong shape or dtype; no keys.
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
        ValueError: wrong shape or dtype; no keys.
    """
    query, key, value, key_count, strides, sizes = _arguments(query, key, value, key_count)
    batch, queries, _, heads, _ = sizes
    shape = tuple(query.shape)
    grad = expect(grad, "grad", torch.float32, shape)
    out = expect(out, "out", torch.float32, shape)
    lse = expect(lse, "lse", torch.float32, (batch, heads, queries))
    gradients = tuple(torch.empty(x.shape, dtype=torch.float32) for x in (query, key, value))
    call(
        "vmf_attention_backward",
        "pppppppppppiiiii",
        grad,
        query,
        key,
        value,
        key_count,
        strides,
        out,
        lse,
        *gradients,
        *sizes,
    )
    grad_query, grad_key, grad_value = gradients
    return grad_query, grad_key, grad_value


def _arguments(
    query: Tensor, key: Tensor, value: Tensor, key_count: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor | None, Tensor, tuple[int, int, int, int, int]]:
    """The tensors, their strides int64 [3, 3] and (B, Nq, Nk, heads, head dim)."""
    batch, queries, heads, dim = query.shape
    keys = key.shape[1]
    query = _dense(query, "query", (batch, queries, heads, dim))
    key = _dense(key, "key", (batch, keys, heads, dim))
    value = _dense(value, "value", (batch, keys, heads, dim))
    if key_count is not None:
        key_count = expect(key_count, "key_count", torch.int32, (batch,))
    strides = torch.tensor([x.stride()[:3] for x in (query, key, value)])
    return query, key, value, key_count, strides, (batch, queries, keys, heads, dim)


def _dense(tensor: Tensor, name: str, shape: tuple[int, ...]) -> Tensor:
    """The tensor, its last dimension dense; copied only where it isn't."""
    if tensor.device.type != "cpu" or tensor.dtype != torch.float32 or tensor.shape != shape:
        return expect(tensor, name, torch.float32, shape)  # raises
    return tensor if shape[-1] == 1 or tensor.stride(-1) == 1 else tensor.contiguous()
