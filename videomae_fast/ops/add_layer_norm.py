"""Residual add and LayerNorm in one pass, forward and backward.

A pre-norm block's branch output is not added where the branch ends but where the next LayerNorm
reads the stream: one pass instead of four (bias, LayerScale, add, norm), and one backward pass
that also sums the gradients of all parameters involved.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from videomae_fast.ops import _native
from videomae_fast.ops._derivatives import first_only
from videomae_fast.ops._dispatch import (
    Backend,
    always,
    lazy,
    needs_native,
    needs_triton,
    register,
)


def add_layer_norm(
    x: Tensor,
    delta: Tensor,
    weight: Tensor,
    bias: Tensor,
    *,
    delta_bias: Tensor | None = None,
    scale: Tensor | None = None,
    factor: Tensor | None = None,
    eps: float = 1e-6,
    impl: str = "auto",
) -> tuple[Tensor, Tensor]:
    """``stream = x + factor * scale * (delta + delta_bias)`` and ``LayerNorm(stream)``.

    Args:
        x: [B, N, D], the residual stream.
        delta: [B, N, D], the output of a branch's last matmul, its bias not yet added.
        weight, bias: [D], LayerNorm's.
        delta_bias: [D], the branch's last bias, or None.
        scale: [D], LayerScale's, or None.
        factor: [B], drop path's factor of each clip, or None; no gradient.

    Returns:
        (normalised, stream), [B, N, D] in the dtype of `x`; everything is computed in fp32.

    Raises:
        ValueError: wrong shapes.
        BackendUnavailableError: `impl` can't run here.

    Source: Block in models/modeling_finetune.py of the official V2 code.
    """
    if x.ndim != 3 or delta.shape != x.shape:
        raise ValueError(f"x and delta must be [B, N, D], got {list(x.shape)}, {list(delta.shape)}")
    for name, vector in (
        ("weight", weight),
        ("bias", bias),
        ("delta_bias", delta_bias),
        ("scale", scale),
    ):
        if vector is not None and vector.shape != x.shape[-1:]:
            raise ValueError(f"{name} must be [{x.shape[-1]}], got {list(vector.shape)}")
    if factor is not None and factor.shape != x.shape[:1]:
        raise ValueError(f"factor must be [{x.shape[0]}], got {list(factor.shape)}")
    out, stream, _, _ = _add_layer_norm(
        x, delta, weight, bias, delta_bias, scale, factor, eps, impl
    )
    return out, stream


@torch.library.custom_op("videomae_fast::add_layer_norm", mutates_args=())
def _add_layer_norm(
    x: Tensor,
    delta: Tensor,
    weight: Tensor,
    bias: Tensor,
    delta_bias: Tensor | None,
    scale: Tensor | None,
    factor: Tensor | None,
    eps: float,
    impl: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(normalised, stream, mean [B, N], rstd [B, N])."""
    out: tuple[Tensor, Tensor, Tensor, Tensor] = FORWARD(
        impl, x, delta, weight, bias, delta_bias, scale, factor, eps
    )
    return out


@_add_layer_norm.register_fake
def _(
    x: Tensor,
    delta: Tensor,
    weight: Tensor,
    bias: Tensor,
    delta_bias: Tensor | None,
    scale: Tensor | None,
    factor: Tensor | None,
    eps: float,
    impl: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    full, rows = x.new_empty(x.shape), x.new_empty(x.shape[:2], dtype=_compute_dtype(x))
    return full, torch.empty_like(full), rows, torch.empty_like(rows)


@torch.library.custom_op("videomae_fast::add_layer_norm_backward", mutates_args=())
def _add_layer_norm_backward(
    grad_out: Tensor,
    grad_stream: Tensor | None,
    stream: Tensor,
    mean: Tensor,
    rstd: Tensor,
    weight: Tensor,
    delta: Tensor | None,
    delta_bias: Tensor | None,
    scale: Tensor | None,
    factor: Tensor | None,
    has_delta_bias: bool,
    impl: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of x, delta, weight, bias, delta_bias, scale.

    The last two are empty where absent, and delta's where it equals that of x: there is neither
    scale nor factor. `delta` and `delta_bias` are read only where there is a `scale`.
    """
    out: tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor] = BACKWARD(
        impl,
        grad_out,
        grad_stream,
        stream,
        mean,
        rstd,
        weight,
        delta,
        delta_bias,
        scale,
        factor,
        has_delta_bias,
    )
    return out


@_add_layer_norm_backward.register_fake
def _(
    grad_out: Tensor,
    grad_stream: Tensor | None,
    stream: Tensor,
    mean: Tensor,
    rstd: Tensor,
    weight: Tensor,
    delta: Tensor | None,
    delta_bias: Tensor | None,
    scale: Tensor | None,
    factor: Tensor | None,
    has_delta_bias: bool,
    impl: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    own_delta = scale is not None or factor is not None
    return (
        stream.new_empty(stream.shape),
        stream.new_empty(stream.shape if own_delta else 0),
        torch.empty_like(weight),
        torch.empty_like(weight),
        weight.new_empty(weight.shape[0] if has_delta_bias else 0),
        weight.new_empty(weight.shape[0] if scale is not None else 0),
    )


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    _, delta, weight, _, delta_bias, scale, factor, _, impl = inputs
    _, stream, mean, rstd = output
    ctx.mark_non_differentiable(mean, rstd)
    ctx.set_materialize_grads(False)
    kept = (delta, delta_bias) if scale is not None else (None, None)
    ctx.save_for_backward(stream, mean, rstd, weight, *kept, scale, factor)
    ctx.has_delta_bias, ctx.impl = delta_bias is not None, impl


def _backward(
    ctx: Any, grad_out: Tensor | None, grad_stream: Tensor | None, *_: Tensor | None
) -> tuple[Tensor | None, ...]:
    stream, mean, rstd, weight, delta, delta_bias, scale, factor = ctx.saved_tensors
    if grad_out is None:
        grad_out = torch.zeros_like(stream)
    grad_x, grad_delta, grad_weight, grad_bias, grad_delta_bias, grad_scale = (
        _add_layer_norm_backward(
            grad_out,
            grad_stream,
            stream,
            mean,
            rstd,
            weight,
            delta,
            delta_bias,
            scale,
            factor,
            ctx.has_delta_bias,
            ctx.impl,
        )
    )
    return (
        grad_x,
        grad_x if scale is None and factor is None else grad_delta,
        grad_weight,
        grad_bias,
        grad_delta_bias if ctx.has_delta_bias else None,
        grad_scale if scale is not None else None,
        None,
        None,
        None,
    )


_add_layer_norm.register_autograd(_backward, setup_context=_setup)
first_only(_add_layer_norm_backward, "add_layer_norm")


def _compute_dtype(x: Tensor) -> torch.dtype:
    return torch.promote_types(x.dtype, torch.float32)


def _forward_reference(
    x: Tensor,
    delta: Tensor,
    weight: Tensor,
    bias: Tensor,
    delta_bias: Tensor | None,
    scale: Tensor | None,
    factor: Tensor | None,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    dtype = _compute_dtype(x)
    branch = delta.to(dtype)
    if delta_bias is not None:
        branch = branch + delta_bias.to(dtype)
    if scale is not None:
        branch = branch * scale.to(dtype)
    if factor is not None:
        branch = branch * factor.to(dtype)[:, None, None]
    stream = (x.to(dtype) + branch).to(x.dtype)
    exact = stream.to(dtype)  # what backward will see
    variance, mean = torch.var_mean(exact, -1, correction=0)
    rstd = (variance + eps).rsqrt()
    out = F.layer_norm(exact, x.shape[-1:], weight.to(dtype), bias.to(dtype), eps)
    return out.to(x.dtype), stream, mean, rstd


def _backward_reference(
    grad_out: Tensor,
    grad_stream: Tensor | None,
    stream: Tensor,
    mean: Tensor,
    rstd: Tensor,
    weight: Tensor,
    delta: Tensor | None,
    delta_bias: Tensor | None,
    scale: Tensor | None,
    factor: Tensor | None,
    has_delta_bias: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    dtype = _compute_dtype(stream)
    grad = grad_out.to(dtype)
    normal = (stream.to(dtype) - mean[..., None]) * rstd[..., None]
    inner = grad * weight.to(dtype)
    correction = inner.mean(-1, keepdim=True) + normal * (inner * normal).mean(-1, keepdim=True)
    grad_x = rstd[..., None] * (inner - correction)
    if grad_stream is not None:
        grad_x = grad_x + grad_stream.to(dtype)
    kept = grad_x if factor is None else grad_x * factor.to(dtype)[:, None, None]
    empty = torch.empty(0, dtype=weight.dtype, device=weight.device)
    grad_scale, grad_branch = empty, kept
    if scale is not None:
        assert delta is not None
        branch = delta.to(dtype)
        if delta_bias is not None:
            branch = branch + delta_bias.to(dtype)
        grad_scale = (kept * branch).sum((0, 1)).to(weight.dtype)
        grad_branch = kept * scale.to(dtype)
    grad_delta_bias = grad_branch.sum((0, 1)).to(weight.dtype) if has_delta_bias else empty.clone()
    shared = scale is None and factor is None
    return (
        grad_x.to(stream.dtype),
        stream.new_empty(0) if shared else grad_branch.to(stream.dtype),
        (grad * normal).sum((0, 1)).to(weight.dtype),
        grad.sum((0, 1)).to(weight.dtype),
        grad_delta_bias,
        grad_scale,
    )


def _forward_native(
    x: Tensor,
    delta: Tensor,
    weight: Tensor,
    bias: Tensor,
    delta_bias: Tensor | None,
    scale: Tensor | None,
    factor: Tensor | None,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    out, stream, mean, rstd = _native.add_layer_norm(
        x, weight, bias, eps, delta=delta, delta_bias=delta_bias, scale=scale, factor=factor
    )
    return out, stream, mean.view(x.shape[:2]), rstd.view(x.shape[:2])


def _backward_native(
    grad_out: Tensor,
    grad_stream: Tensor | None,
    stream: Tensor,
    mean: Tensor,
    rstd: Tensor,
    weight: Tensor,
    delta: Tensor | None,
    delta_bias: Tensor | None,
    scale: Tensor | None,
    factor: Tensor | None,
    has_delta_bias: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    gradients = _native.add_layer_norm_backward(
        grad_out,
        stream,
        mean.flatten(),
        rstd.flatten(),
        weight,
        grad_stream=grad_stream,
        delta=delta,
        delta_bias=delta_bias,
        scale=scale,
        factor=factor,
        with_delta_bias=has_delta_bias,
    )
    x, of_delta, *vectors = (torch.empty(0) if g is None else g for g in gradients)
    return x, of_delta, vectors[0], vectors[1], vectors[2], vectors[3]


def _native_why_not(*args: Any) -> str | None:
    tensors = [arg for arg in args if isinstance(arg, Tensor)]
    for tensor in tensors:
        if tensor.dtype != torch.float32:
            return f"the native library takes fp32, not {tensor.dtype}"
    return needs_native(*tensors)


def _triton_why_not(*args: Any) -> str | None:
    tensors = [arg for arg in args if isinstance(arg, Tensor)]
    if any(tensor.dtype == torch.float64 for tensor in tensors):
        return "the Triton kernels compute in fp32, not in float64"
    return needs_triton(*tensors)


FORWARD = register(
    "add_layer_norm",
    triton=Backend(lazy("add_layer_norm", "forward"), _triton_why_not),
    native=Backend(_forward_native, _native_why_not),
    reference=Backend(_forward_reference, always),
)
BACKWARD = register(
    "add_layer_norm_backward",
    triton=Backend(lazy("add_layer_norm", "backward"), _triton_why_not),
    native=Backend(_backward_native, _native_why_not),
    reference=Backend(_backward_reference, always),
)
