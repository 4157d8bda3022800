"""Softmax attention over queries, keys and values in token-major layout."""

from __future__ import annotations

import torch
from torch import Tensor

from videomae_fast.ops._attention.choice import TablePolicy, why_not_native
from videomae_fast.ops._attention.libraries import LIBRARIES, key_mask
from videomae_fast.ops._declare import Gradient, declare, native, triton
from videomae_fast.ops._native import heads, in_fp32
from videomae_fast.ops.registry import FP32_BF16


def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    key_count: Tensor | None = None,
    impl: str = "auto",
) -> Tensor:
    """``softmax(query keyᵀ / sqrt(head dim)) value`` per clip and head.

    Token-major layout, so that slices of one packed QKV matmul go in as views, and queries may be
    fewer than keys.

    Args:
        query: [B, Nq, heads, head dim].
        key: [B, Nk, heads, head dim].
        value: [B, Nk, heads, head dim]. Values that take no part may not be NaN or infinite: their
            weight is 0, and 0 times these is NaN.
        key_count: int32 [B] or None: only the first `key_count[b]` keys of a clip take part, at
            least one.
        impl: "auto": on a GPU what attention_table.json holds for the device and the shape (bf16
            and fp16 without key_count), on CPUs with AVX2 that are not Intel's "native" for fp32
            and bf16 (not where autocast would cast), else "sdpa";
            "sdpa": torch's scaled_dot_product_attention, which picks its own backend;
            "cudnn", "flash", "efficient": one of these backends of it, and no other;
            "triton", "native": this library's kernels for a GPU and for a CPU (in fp32);
            "flash-attn", "flash-attn-4", "xformers": these
            libraries, where installed; "reference": the softmax written out, in fp32.
            Under ``torch.use_deterministic_algorithms`` those whose gradients are added up in any
            order ("cudnn", "flash-attn-4", "xformers") don't run, and "sdpa" takes none of them.

    Returns:
        [B, Nq, heads, head dim], dtype of `query`.

    Raises:
        ValueError: wrong shapes.
        BackendUnavailableError: `impl` can't run here.

    Source: Attention in models/modeling_finetune.py of the official V2 code.
    """
    check_heads(query, key, value)
    if key_count is not None:
        check_key_count(key_count, key)
    out: Tensor | tuple[Tensor, Tensor] = ATTENTION(impl, query, key, value, key_count)
    return out[0] if isinstance(out, tuple) else out  # libraries keep their log-sum-exp


def check_heads(query: Tensor, key: Tensor, value: Tensor) -> None:
    """Raises ValueError where the shapes don't go together."""
    if query.ndim != 4 or key.ndim != 4 or key.shape != value.shape:
        raise ValueError(
            "query, key, value must be [B, N, heads, head dim], got "
            f"{list(query.shape)}, {list(key.shape)}, {list(value.shape)}"
        )
    if query.shape[0] != key.shape[0] or query.shape[2:] != key.shape[2:]:
        raise ValueError(f"query {list(query.shape)} does not fit key {list(key.shape)}")


def check_key_count(key_count: Tensor, key: Tensor) -> None:
    """Raises ValueError where there isn't one for each clip."""
    if key_count.shape != (key.shape[0],):
        raise ValueError(f"key_count must be [{key.shape[0]}], got {list(key_count.shape)}")


def attention_reference(
    query: Tensor, key: Tensor, value: Tensor, key_count: Tensor | None
) -> tuple[Tensor, Tensor]:
    """(output [B, Nq, heads, head dim], log-sum-exp [B, heads, Nq] for the backward)."""
    scores, dtype = _scores(query, key, key_count)
    lse = scores.logsumexp(-1)
    weights = (scores - lse[..., None]).exp()
    out = torch.einsum("bhqk,bkhd->bqhd", weights, value.to(dtype))
    return out.to(query.dtype), lse


def attention_backward_reference(
    grad: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    key_count: Tensor | None,
    out: Tensor,
    lse: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    scores, dtype = _scores(query, key, key_count)
    weights = (scores - lse[..., None]).exp()
    grad, out = grad.to(dtype), out.to(dtype)
    grad_value = torch.einsum("bhqk,bqhd->bkhd", weights, grad)
    delta = (grad * out).sum(-1).transpose(1, 2)[..., None]  # [B, heads, Nq, 1]
    grad_weights = torch.einsum("bqhd,bkhd->bhqk", grad, value.to(dtype))
    grad_scores = weights * (grad_weights - delta) * query.shape[-1] ** -0.5
    grad_query = torch.einsum("bhqk,bkhd->bqhd", grad_scores, key.to(dtype))
    grad_key = torch.einsum("bhqk,bqhd->bkhd", grad_scores, query.to(dtype))
    return (grad_query.to(query.dtype), grad_key.to(key.dtype), grad_value.to(value.dtype))


def _scores(query: Tensor, key: Tensor, key_count: Tensor | None) -> tuple[Tensor, torch.dtype]:
    """Scaled scores [B, heads, Nq, Nk], -inf where a key takes no part, and their dtype."""
    dtype = torch.promote_types(query.dtype, torch.float32)
    scores = torch.einsum("bqhd,bkhd->bhqk", query.to(dtype), key.to(dtype))
    scores = scores * query.shape[-1] ** -0.5
    if key_count is not None:
        scores = scores.masked_fill(~key_mask(key, key_count), float("-inf"))
    return scores, dtype


def _native_unfit(key_count: Tensor | None) -> str | None:
    if key_count is not None and key_count.dtype != torch.int32:
        return f"the native library takes int32 for key_count, not {key_count.dtype}"
    return None


def _triton_unfit(query: Tensor, key: Tensor, value: Tensor) -> str | None:
    if not query.dtype == key.dtype == value.dtype:
        return f"query, key and value are {query.dtype}, {key.dtype}, {value.dtype}"
    if query.shape[-1] > 256:
        return f"the Triton kernels take head dims up to 256, not {query.shape[-1]}"
    return None


ATTENTION = declare(
    "attention",
    attention_reference,
    policy=TablePolicy(),
    native=native(
        in_fp32(heads.attention, "query", None),
        dtypes=FP32_BF16,
        unfit=_native_unfit,
        held_back=why_not_native,
    ),
    **LIBRARIES,
    triton=triton("attention", "forward", unfit=_triton_unfit),
    gradient=Gradient(
        attention_backward_reference,
        of=("query", "key", "value"),
        backends={
            "triton": triton("attention", "backward", unfit=_triton_unfit),
            "native": native(
                in_fp32(heads.attention_backward, "query", "key", "value"),
                dtypes=FP32_BF16,
                unfit=_native_unfit,
            ),
        },
        results=("out", "lse"),
    ),
)
IMPLS = ("auto", *ATTENTION.op.backends)
