"""One buffer of queries, keys and values: its bias, and its gradient from three."""

from __future__ import annotations

import torch
from torch import Tensor

from videomae_fast.ops._declare import declare, triton


def packed_bias(
    q_bias: Tensor | None, v_bias: Tensor, dtype: torch.dtype, *, impl: str = "auto"
) -> Tensor:
    """The bias of one matmul that makes queries, keys and values: keys have none.

    It has no gradient: :func:`videomae_fast.ops.packed_attention` gives that to the biases.

    Args:
        q_bias: [D], or None: the matmul makes keys and values only.
        v_bias: [D].
        dtype: of the result.
        impl: "auto", "triton" (CUDA) or "reference".

    Returns:
        [3 D] or [2 D]: q_bias, zeros, v_bias.

    Raises:
        ValueError: wrong shapes.
        BackendUnavailableError: `impl` can't run here.

    Source: Attention in models/modeling_finetune.py of the official V2 code.
    """
    if v_bias.ndim != 1 or (q_bias is not None and q_bias.shape != v_bias.shape):
        shapes = [list(one.shape) for one in (q_bias, v_bias) if one is not None]
        raise ValueError(f"q_bias and v_bias must be [D], got {shapes}")
    q_bias = None if q_bias is None else q_bias.detach()
    out: Tensor = _BIAS(impl, v_bias.detach(), q_bias, dtype)
    return out


def join_gradients(
    grad_query: Tensor,
    grad_key: Tensor,
    grad_value: Tensor,
    q_bias: Tensor | None,
    v_bias: Tensor | None,
    apart: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """One gradient of three, and those of the biases of queries and values, in one pass.

    Args:
        grad_query: [B, K, heads, head dim].
        grad_key, grad_value: [B, N, heads, head dim].
        q_bias, v_bias: [heads * head dim], whose dtype the sums get; None: no sum.
        apart: the queries are a tensor of their own, whose gradient is summed only.

    Returns:
        [B, N, 3, heads, head dim] (`apart`: 2), and the sums over clips and tokens of the
        gradients of queries and of values, empty where there is no bias.
    """
    out: tuple[Tensor, Tensor, Tensor] = _JOIN(
        "auto", grad_query, grad_key, grad_value, q_bias, v_bias, apart
    )
    return out


def _bias_reference(v_bias: Tensor, q_bias: Tensor | None, dtype: torch.dtype) -> Tensor:
    parts = (torch.zeros_like(v_bias), v_bias)
    return torch.cat(parts if q_bias is None else (q_bias, *parts)).to(dtype)


def _join_reference(
    grad_query: Tensor,
    grad_key: Tensor,
    grad_value: Tensor,
    q_bias: Tensor | None,
    v_bias: Tensor | None,
    apart: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    parts = (grad_key, grad_value) if apart else (grad_query, grad_key, grad_value)
    return (
        torch.stack(parts, 2),
        summed(grad_query, q_bias, needed=True),
        summed(grad_value, v_bias, needed=True),
    )


def summed(grad: Tensor, bias: Tensor | None, needed: bool) -> Tensor:
    """A bias's gradient, of that of tokens [B, N, heads, head dim]; empty where not needed."""
    if bias is None or not needed:
        return grad.new_empty(0)
    dtype = torch.promote_types(grad.dtype, torch.float32)
    return grad.sum((0, 1), dtype=dtype).flatten().to(bias.dtype)


_BIAS = declare("packed_bias", _bias_reference, triton=triton("packed_qkv", "bias"))
_JOIN = declare("packed_join", _join_reference, triton=triton("packed_qkv", "join"))
