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

from videomae_fast.ops._declare import Gradient, declare, native, triton
from videomae_fast.ops._native import rows
from videomae_fast.ops.registry import FP32_BF16


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
        weight: [D], LayerNorm's.
        bias: [D], LayerNorm's.
        delta_bias: [D], the branch's last bias, or None.
        scale: [D], LayerScale's, or None.
        factor: [B], drop path's factor of each clip, or None; no gradient.
        eps: LayerNorm's epsilon.
        impl: "auto", "triton" (CUDA), "native" (CPU) or "reference".

    Returns:
        (normalised, stream), [B, N, D] in the dtype of `x`; everything is computed in fp32.

    Raises:
        ValueError: wrong shapes.
        BackendUnavailableError: `impl` can't run here.

    Source: Block in models/modeling_finetune.py of the official V2 code.
    """
    check_norm(x, delta, weight, bias, delta_bias, scale, factor)
    out, stream, _, _ = _ADD_LAYER_NORM(
        impl, x, delta, weight, bias, delta_bias, scale, factor, eps
    )
    return out, stream


def check_norm(
    x: Tensor,
    delta: Tensor,
    weight: Tensor,
    bias: Tensor,
    delta_bias: Tensor | None,
    scale: Tensor | None,
    factor: Tensor | None,
) -> None:
    """Raises ValueError where shapes are wrong."""
    if x.ndim != 3 or delta.shape != x.shape:
        raise ValueError(f"x and delta must be [B, N, D], got {list(x.shape)}, {list(delta.shape)}")
    width = x.shape[-1:]
    for i, vector in enumerate((weight, bias, delta_bias, scale)):
        if vector is not None and vector.shape != width:
            name = ("weight", "bias", "delta_bias", "scale")[i]
            raise ValueError(f"{name} must be {list(width)}, got {list(vector.shape)}")
    if factor is not None and factor.shape != x.shape[:1]:
        raise ValueError(f"factor must be [{x.shape[0]}], got {list(factor.shape)}")


def _compute_dtype(x: Tensor) -> torch.dtype:
    return torch.promote_types(x.dtype, torch.float32)


def norm_reference(
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


def _kept(
    stream: Tensor,
    mean: Tensor,
    rstd: Tensor,
    weight: Tensor,
    delta: Tensor,
    delta_bias: Tensor | None,
    scale: Tensor | None,
    factor: Tensor | None,
) -> tuple[Any, ...]:
    """The branch is read again for the scale's gradient only."""
    branch = (None, None) if scale is None else (delta, delta_bias)
    return stream, mean, rstd, weight, *branch, scale, factor, delta_bias is not None


def _gradients(
    result: tuple[Tensor, ...], scale: Tensor | None, factor: Tensor | None
) -> tuple[Tensor, ...]:
    """That of delta is that of x where nothing scales the branch."""
    grad_x, grad_delta, *others = result
    return grad_x, grad_x if scale is None and factor is None else grad_delta, *others


_BACKWARD = declare(
    "add_layer_norm_backward",
    _backward_reference,
    triton=triton("add_layer_norm", "backward"),
    native=native(rows.add_layer_norm_backward, dtypes=FP32_BF16),
)
_BACKWARD.refuse_gradient("add_layer_norm")


def norm_gradient(*more: str) -> Gradient:
    """How the gradients come about, where forward has `more` results."""
    return Gradient(
        _BACKWARD,
        of=("x", "delta", "weight", "bias", "delta_bias", "scale"),
        results=("out", "stream", "mean", "rstd", *more),
        differentiable=2,
        keep=_kept,
        finish=_gradients,
    )


_ADD_LAYER_NORM = declare(
    "add_layer_norm",
    norm_reference,
    triton=triton("add_layer_norm", "forward"),
    native=native(rows.add_layer_norm, dtypes=FP32_BF16),
    gradient=norm_gradient(),
)
