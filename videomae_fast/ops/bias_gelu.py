"""Bias and GELU (erf) in one pass, forward and backward.

Backward recomputes from the matmul's output, so that neither the sum nor the activation's
derivative is stored, and sums the bias's gradient on the way.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from videomae_fast.ops._declare import Gradient, declare, native, triton
from videomae_fast.ops._native import rows
from videomae_fast.ops.registry import FP32_BF16


def bias_gelu(x: Tensor, bias: Tensor, *, impl: str = "auto") -> Tensor:
    """``gelu(x + bias)``, the exact form with erf.

    Args:
        x: [..., D], the output of a matmul, its bias not yet added.
        bias: [D].
        impl: "auto", "triton" (CUDA), "native" (CPU) or "reference".

    Returns:
        [..., D], dtype of `x`; computed in fp32.

    Raises:
        ValueError: wrong shapes.
        BackendUnavailableError: `impl` can't run here.

    Source: Mlp in models/modeling_finetune.py of the official V2 code.
    """
    if bias.shape != x.shape[-1:]:
        raise ValueError(f"bias must be [{x.shape[-1]}], got {list(bias.shape)}")
    out: Tensor = _BIAS_GELU(impl, x, bias)
    return out


def gelu_reference(x: Tensor, bias: Tensor) -> Tensor:
    dtype = torch.promote_types(x.dtype, torch.float32)
    return F.gelu(x.to(dtype) + bias.to(dtype)).to(x.dtype)


def _backward_reference(grad: Tensor, x: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    dtype = torch.promote_types(x.dtype, torch.float32)
    z = x.to(dtype) + bias.to(dtype)
    out = grad.to(dtype) * gelu_slope(z)
    return out.to(x.dtype), out.flatten(0, -2).sum(0).to(bias.dtype)


def gelu_slope(z: Tensor) -> Tensor:
    """GELU's derivative."""
    cdf = 0.5 * (1 + torch.erf(z * math.sqrt(0.5)))
    density = torch.exp(-0.5 * z * z) / math.sqrt(2 * math.pi)
    return cdf + z * density


BACKWARD = declare(
    "bias_gelu_backward",
    _backward_reference,
    triton=triton("bias_gelu", "backward"),
    native=native(rows.bias_gelu_backward, dtypes=FP32_BF16),
)
BACKWARD.refuse_gradient("bias_gelu")

_BIAS_GELU = declare(
    "bias_gelu",
    gelu_reference,
    triton=triton("bias_gelu", "forward"),
    native=native(rows.bias_gelu, dtypes=FP32_BF16),
    gradient=Gradient(BACKWARD, of=("x", "bias")),
)
