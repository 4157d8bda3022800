"""A linear layer whose products are of e4m3: forward and the input's gradient.

The weight's gradient stays in the dtype of the activations: its sum runs over tokens, across which
the operands' scales differ, and it is what the optimizer adds up. Docs: docs/kernels/fp8_linear.md.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import Final

import torch
from torch import Tensor

from videomae_fast.ops._declare import Gradient, declare
from videomae_fast.ops.quantize_rows import E4M3, Quantized, quantize_rows, why_no_e4m3
from videomae_fast.ops.registry import Backend

MULTIPLE: Final = 16  # of both widths, as torch._scaled_mm has it
FAST_ACCUMULATION: Final = True
"""Tensor cores of sm_90 add products up in fewer bits than fp32 has, unless a kernel now and then
adds what they have to a sum of its own. torch's kernels for scales by row are quick without that
only (torchao, docs of its rowwise recipe)."""


def fp8_linear(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    quantized: Quantized | None = None,
    impl: str = "auto",
) -> Tensor:
    """``x weightᵀ + bias`` by products of e4m3, with a scale for each token and output channel.

    Backward goes straight through the rounding. The input's gradient is the product of the
    gradient's rows in e4m3 and of the same rounded weight as forward's; the weight's is that of
    `x` and of the gradient as they are.

    Args:
        x: [..., in]; under autocast it is cast. The weight is not: it is rounded once, to e4m3.
        weight: [out, in].
        bias: [out] or None.
        quantized: `x` as ``quantize_rows`` has it, where something made that already.
        impl: "scaled_mm" (``torch._scaled_mm``: a GPU with e4m3, x in bf16, widths that are
            multiples of 16), "reference" (the same products in fp32, everywhere) or "auto".

    Returns:
        [..., out], dtype of `x`.

    Raises:
        ValueError: wrong shapes.
        BackendUnavailableError: `impl` can't run here.
    """
    if weight.ndim != 2 or x.shape[-1:] != weight.shape[1:]:
        shapes = [list(one.shape) for one in (x, weight)]
        raise ValueError(f"x must be [..., in] and weight [out, in], got {shapes}")
    if bias is not None and bias.shape != weight.shape[:1]:
        raise ValueError(f"bias must be [{weight.shape[0]}], got {list(bias.shape)}")
    device = x.device.type
    if torch.is_autocast_enabled(device):
        x = x.to(torch.get_autocast_dtype(device))
    values, scale = quantize_rows(x) if quantized is None else quantized
    if values.shape != x.shape or values.dtype != E4M3 or scale.shape != x.shape[:-1]:
        told = f"{values.dtype} {list(values.shape)}, {list(scale.shape)}"
        raise ValueError(f"quantized must be e4m3 {list(x.shape)} and its scales, got {told}")
    out: Tensor = _FP8_LINEAR(impl, x, values, scale, weight, bias)
    return out


def _emulated(
    values: Tensor,
    scale: Tensor,
    others: Tensor,
    other_scale: Tensor | None,
    bias: Tensor | None,
    dtype: torch.dtype,
) -> Tensor:
    """What :func:`_scaled_mm` computes, in fp32; in fp64 where a scale is."""
    a = values.float() * scale[:, None]
    b = others.float() if other_scale is None else others.float() * other_scale[:, None]
    wide = torch.promote_types(a.dtype, b.dtype)
    a, b = a.to(wide), b.to(wide)
    kind = values.device.type
    lowered = kind != "meta" and torch.is_autocast_enabled(kind)
    with torch.autocast(kind, enabled=False) if lowered else nullcontext():
        out = a @ b.t()
    return (out if bias is None else out + bias.to(out.dtype)).to(dtype)


def _scaled_mm(
    values: Tensor,
    scale: Tensor,
    others: Tensor,
    other_scale: Tensor | None,
    bias: Tensor | None,
    dtype: torch.dtype,
) -> Tensor:
    """Rows [m, k] times rows [n, k]: [m, n]. Scales are fp32 [m] and [n]; None: 1."""
    if values.shape[0] == 0:
        return torch.empty((0, others.shape[0]), dtype=dtype, device=values.device)
    if other_scale is None:
        other_scale = torch.ones(others.shape[0], device=others.device)
    return torch._scaled_mm(
        values,
        others.t(),
        scale_a=scale[:, None],
        scale_b=other_scale[None, :],
        bias=None if bias is None else bias.to(dtype),
        out_dtype=dtype,
        use_fast_accum=FAST_ACCUMULATION,
    )


_Product = Callable[[Tensor, Tensor, Tensor, Tensor | None, Tensor | None, torch.dtype], Tensor]


def _forward_by(product: _Product) -> Callable[..., Tensor]:
    def forward(
        x: Tensor, values: Tensor, scale: Tensor, weight: Tensor, bias: Tensor | None
    ) -> Tensor:
        inner, outer = x.shape[-1], weight.shape[0]
        rows = values.reshape(-1, inner), scale.reshape(-1)
        out = product(*rows, *quantize_rows(weight), bias, x.dtype)
        return out.view(*x.shape[:-1], outer)

    return forward


def _backward_by(product: _Product) -> Callable[..., tuple[Tensor, Tensor, Tensor]]:
    def backward(
        grad: Tensor, x: Tensor, weight: Tensor, needs_x: bool, needs_bias: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Gradients of x, weight and bias; x's and the bias's are empty where not wanted."""
        outer, rows = grad.reshape(-1, weight.shape[0]), x.reshape(-1, x.shape[-1])
        grad_x = grad_bias = x.new_empty(0)
        if needs_x:
            # The sum is over output channels: their scales go to the gradient
            values, scale = quantize_rows(weight)
            given = quantize_rows(outer, factor=scale)
            grad_x = product(*given, _transposed(values), None, None, x.dtype).view(x.shape)
        grad_weight = (outer.t() @ rows).to(weight.dtype)
        if needs_bias:
            grad_bias = outer.sum(0, dtype=torch.promote_types(outer.dtype, torch.float32))
        return grad_x, grad_weight, grad_bias

    return backward


def _transposed(values: Tensor) -> Tensor:
    """[n, k] to [k, n], contiguous: tensor cores take both operands along the sum."""
    return values.view(torch.uint8).t().contiguous().view(values.dtype)


def _unfit(x: Tensor, weight: Tensor) -> str | None:
    if x.dtype != torch.bfloat16:
        return f"torch._scaled_mm gives bf16, and x is {x.dtype}"
    if any(side % MULTIPLE for side in weight.shape):
        sides = list(weight.shape)
        return f"torch._scaled_mm takes widths that are multiples of {MULTIPLE}, not {sides}"
    return why_no_e4m3(x.device)


_OF_TORCH = partial(Backend, title="torch._scaled_mm", device="cuda", unfit=_unfit)

_FP8_LINEAR = declare(
    "fp8_linear",
    _forward_by(_emulated),
    scaled_mm=_OF_TORCH(_forward_by(_scaled_mm)),
    gradient=Gradient(
        _backward_by(_emulated),
        of=("x", "weight", "bias"),
        backends={"scaled_mm": _OF_TORCH(_backward_by(_scaled_mm))},
    ),
)
