"""Softmax attention over queries, keys and values in token-major layout."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from videomae_fast.errors import BackendUnavailableError
from videomae_fast.ops import _native
from videomae_fast.ops._attention.choice import choice
from videomae_fast.ops._attention.libraries import LIBRARIES, key_mask
from videomae_fast.ops._derivatives import first_only
from videomae_fast.ops._dispatch import (
    Backend,
    always,
    forced_impl,
    lazy,
    needs_native,
    needs_triton,
    register,
)


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
        key, value: [B, Nk, heads, head dim]. Values that take no part may not be NaN or infinite:
            their weight is 0, and 0 times these is NaN.
        key_count: int32 [B] or None: only the first `key_count[b]` keys of a clip take part, at
            least one.
        impl: "auto": on a GPU what attention_table.json holds for the device and the shape (bf16
            and fp16 without key_count), on CPUs with AVX-512 that are not Intel's "native" for
            fp32 outside autocast, else "sdpa";
            "sdpa": torch's scaled_dot_product_attention, which picks its own backend;
            "cudnn", "flash", "efficient": one of these backends of it, and no other;
            "triton", "native": this library's kernels for a GPU and, fp32, for a CPU;
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
    if query.ndim != 4 or key.ndim != 4 or key.shape != value.shape:
        raise ValueError(
            "query, key, value must be [B, N, heads, head dim], got "
            f"{list(query.shape)}, {list(key.shape)}, {list(value.shape)}"
        )
    if query.shape[0] != key.shape[0] or query.shape[2:] != key.shape[2:]:
        raise ValueError(f"query {list(query.shape)} does not fit key {list(key.shape)}")
    if key_count is not None and key_count.shape != (key.shape[0],):
        raise ValueError(f"key_count must be [{key.shape[0]}], got {list(key_count.shape)}")
    if impl == "auto":
        impl = forced_impl("attention") if forced_impl("attention") in IMPLS else "auto"
    if impl == "auto":
        impl = choice(query, key, key_count)
    if impl not in LIBRARIES:
        out: Tensor = _attention(query, key, value, key_count, impl)[0]
        return out
    library = LIBRARIES[impl]
    reason = library.why_not(query, key, value, key_count)
    if reason is not None:
        raise BackendUnavailableError(f"attention: backend {impl!r} can't run: {reason}")
    out = library.run(query, key, value, key_count)
    return out


@torch.library.custom_op("videomae_fast::attention", mutates_args=())
def _attention(
    query: Tensor, key: Tensor, value: Tensor, key_count: Tensor | None, impl: str
) -> tuple[Tensor, Tensor]:
    """(output [B, Nq, heads, head dim], log-sum-exp [B, heads, Nq] for the backward)."""
    if impl not in OP.backends:
        raise BackendUnavailableError(f"attention has no backend {impl!r}; it has {IMPLS}")
    out: tuple[Tensor, Tensor] = OP(impl, query, key, value, key_count)
    return out


def _forward_reference(
    query: Tensor, key: Tensor, value: Tensor, key_count: Tensor | None
) -> tuple[Tensor, Tensor]:
    scores, dtype = _scores(query, key, key_count)
    lse = scores.logsumexp(-1)
    weights = (scores - lse[..., None]).exp()
    out = torch.einsum("bhqk,bkhd->bqhd", weights, value.to(dtype))
    return out.to(query.dtype).contiguous(), lse


@_attention.register_fake
def _(
    query: Tensor, key: Tensor, value: Tensor, key_count: Tensor | None, impl: str
) -> tuple[Tensor, Tensor]:
    b, n, h, _ = query.shape
    lse = query.new_empty((b, h, n), dtype=_compute_dtype(query))
    return torch.empty_like(query, memory_format=torch.contiguous_format), lse


@torch.library.custom_op("videomae_fast::attention_backward", mutates_args=())
def _attention_backward(
    grad: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    key_count: Tensor | None,
    out: Tensor,
    lse: Tensor,
    impl: str,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of query, key and value, contiguous."""
    gradients: tuple[Tensor, Tensor, Tensor] = BACKWARD(
        impl, grad, query, key, value, key_count, out, lse
    )
    return gradients


def _backward_reference(
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
    return (
        grad_query.to(query.dtype).contiguous(),
        grad_key.to(key.dtype).contiguous(),
        grad_value.to(value.dtype).contiguous(),
    )


@_attention_backward.register_fake
def _(
    grad: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    key_count: Tensor | None,
    out: Tensor,
    lse: Tensor,
    impl: str,
) -> tuple[Tensor, Tensor, Tensor]:
    like = torch.contiguous_format
    return (
        torch.empty_like(query, memory_format=like),
        torch.empty_like(key, memory_format=like),
        torch.empty_like(value, memory_format=like),
    )


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    query, key, value, key_count, ctx.impl = inputs
    ctx.save_for_backward(query, key, value, key_count, *output)
    ctx.mark_non_differentiable(output[1])


def _backward(
    ctx: Any, grad: Tensor, grad_lse: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, None, None]:
    return (*_attention_backward(grad, *ctx.saved_tensors, ctx.impl), None, None)


_attention.register_autograd(_backward, setup_context=_setup)
first_only(_attention_backward, "attention")


def _compute_dtype(x: Tensor) -> torch.dtype:
    return torch.promote_types(x.dtype, torch.float32)


def _scores(query: Tensor, key: Tensor, key_count: Tensor | None) -> tuple[Tensor, torch.dtype]:
    """Scaled scores [B, heads, Nq, Nk], -inf where a key takes no part, and their dtype."""
    dtype = _compute_dtype(query)
    scores = torch.einsum("bqhd,bkhd->bhqk", query.to(dtype), key.to(dtype))
    scores = scores * query.shape[-1] ** -0.5
    if key_count is not None:
        scores = scores.masked_fill(~key_mask(key, key_count), float("-inf"))
    return scores, dtype


def _native_why_not(*tensors: Tensor | None) -> str | None:
    for tensor in tensors:
        if tensor is not None and tensor.dtype not in (torch.float32, torch.int32):
            return f"the native library takes fp32, not {tensor.dtype}"
    return needs_native(*tensors)


def _triton_why_not(query: Tensor, key: Tensor, value: Tensor, *rest: Tensor | None) -> str | None:
    if query.dtype not in (torch.float32, torch.bfloat16, torch.float16):
        return f"the Triton kernels take fp32, bf16 and fp16, not {query.dtype}"
    if not query.dtype == key.dtype == value.dtype:
        return f"query, key and value are {query.dtype}, {key.dtype}, {value.dtype}"
    if query.shape[-1] > 256:
        return f"the Triton kernels take head dims up to 256, not {query.shape[-1]}"
    return needs_triton(query, key, value, *rest)


def _backward_triton_why_not(grad: Tensor, *tensors: Tensor | None) -> str | None:
    return _triton_why_not(*tensors, grad)  # type: ignore[arg-type]


OP = register(
    "attention",
    triton=Backend(lazy("attention", "forward"), _triton_why_not),
    native=Backend(_native.attention, _native_why_not),
    reference=Backend(_forward_reference, always),
)
BACKWARD = register(
    "attention_backward",
    triton=Backend(lazy("attention", "backward"), _backward_triton_why_not),
    native=Backend(_native.attention_backward, _native_why_not),
    reference=Backend(_backward_reference, always),
)
IMPLS = ("auto", *LIBRARIES, *OP.backends)
