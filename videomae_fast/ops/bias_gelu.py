"""Bias and GELU (erf) in one pass, forward and backward.

Backward recomputes from the matmul's output, so that neither the sum nor the activation's
derivative is stored, and sums the bias's gradient on the way.
"""

from __future__ import annotations

import math
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


def bias_gelu(x: Tensor, bias: Tensor, *, impl: str = "auto") -> Tensor:
    """``gelu(x + bias)``, the exact form with erf.

    Args:
        x: [..., D], the output of a matmul, its bias not yet added.
        bias: [D].

    Returns:
        [..., D], dtype of `x`; computed in fp32.

    Raises:
        ValueError: wrong shapes.
        BackendUnavailableError: `impl` can't run here.

    Source: Mlp in models/modeling_finetune.py of the official V2 code.
    """
    if bias.shape != x.shape[-1:]:
        raise ValueError(f"bias must be [{x.shape[-1]}], got {list(bias.shape)}")
    out: Tensor = _bias_gelu(x, bias, impl)
    return out


@torch.library.custom_op("videomae_fast::bias_gelu", mutates_args=())
def _bias_gelu(x: Tensor, bias: Tensor, impl: str) -> Tensor:
    out: Tensor = FORWARD(impl, x, bias)
    return out


@_bias_gelu.register_fake
def _(x: Tensor, bias: Tensor, impl: str) -> Tensor:
    return x.new_empty(x.shape)


@torch.library.custom_op("videomae_fast::bias_gelu_backward", mutates_args=())
def _bias_gelu_backward(grad: Tensor, x: Tensor, bias: Tensor, impl: str) -> tuple[Tensor, Tensor]:
    """Gradients of x and of the bias."""
    out: tuple[Tensor, Tensor] = BACKWARD(impl, grad, x, bias)
    return out


@_bias_gelu_backward.register_fake
def _(grad: Tensor, x: Tensor, bias: Tensor, impl: str) -> tuple[Tensor, Tensor]:
    return x.new_empty(x.shape), torch.empty_like(bias)


def _setup(ctx: Any, inputs: tuple[Tensor, Tensor, str], output: Tensor) -> None:
    x, bias, impl = inputs
    ctx.save_for_backward(x, bias)
    ctx.impl = impl


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
    return (*_bias_gelu_backward(grad, *ctx.saved_tensors, ctx.impl), None)


_bias_gelu.register_autograd(_backward, setup_context=_setup)
first_only(_bias_gelu_backward, "bias_gelu")


def _forward_reference(x: Tensor, bias: Tensor) -> Tensor:
    dtype = torch.promote_types(x.dtype, torch.float32)
    return F.gelu(x.to(dtype) + bias.to(dtype)).to(x.dtype)


def _backward_reference(grad: Tensor, x: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    dtype = torch.promote_types(x.dtype, torch.float32)
    z = x.to(dtype) + bias.to(dtype)
    cdf = 0.5 * (1 + torch.erf(z * math.sqrt(0.5)))
    density = torch.exp(-0.5 * z * z) / math.sqrt(2 * math.pi)
    out = grad.to(dtype) * (cdf + z * density)
    return out.to(x.dtype), out.flatten(0, -2).sum(0).to(bias.dtype)


def _native_why_not(x: Tensor, bias: Tensor) -> str | None:
    if not x.dtype == bias.dtype == torch.float32:
        return f"the native library takes fp32, not {x.dtype} and {bias.dtype}"
    return needs_native(x, bias)


def _backward_native_why_not(grad: Tensor, x: Tensor, bias: Tensor) -> str | None:
    return _native_why_not(x, bias)


def _triton_why_not(*tensors: Tensor) -> str | None:
    if any(tensor.dtype == torch.float64 for tensor in tensors):
        return "the Triton kernels compute in fp32, not in float64"
    return needs_triton(*tensors)


FORWARD = register(
    "bias_gelu",
    triton=Backend(lazy("bias_gelu", "forward"), _triton_why_not),
    native=Backend(_native.bias_gelu, _native_why_not),
    reference=Backend(_forward_reference, always),
)
BACKWARD = register(
    "bias_gelu_backward",
    triton=Backend(lazy("bias_gelu", "backward"), _triton_why_not),
    native=Backend(_native.bias_gelu_backward, _backward_native_why_not),
    reference=Backend(_backward_reference, always),
)
