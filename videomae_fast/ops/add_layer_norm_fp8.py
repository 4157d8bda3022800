"""Residual add and LayerNorm whose result comes in e4m3 too, made in the same pass."""

from __future__ import annotations

from torch import Tensor

from videomae_fast.ops._declare import declare, triton
from videomae_fast.ops.add_layer_norm import check_norm, norm_gradient, norm_reference
from videomae_fast.ops.quantize_rows import Quantized, quantized_reference, unfit_for_e4m3


def add_layer_norm_fp8(
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
) -> tuple[Tensor, Tensor, Quantized]:
    """:func:`videomae_fast.ops.add_layer_norm`, and its first result as ``quantize_rows`` has it.

    Args:
        x: [B, N, D], the stream.
        delta: [B, N, D], what is added to it.
        weight: [D], of the LayerNorm.
        bias: [D], of the LayerNorm.
        delta_bias: [D] or None, added to `delta`.
        scale: [D] or None, a factor of `delta` and its bias (LayerScale).
        factor: fp32 [B] or None, a factor of the clip's (drop path).
        eps: of the LayerNorm.
        impl: "auto", "triton" (CUDA) or "reference".

    Returns:
        (normalised, stream), and the normalised rows in e4m3, without a gradient of their own.

    Raises:
        ValueError: wrong shapes.
        BackendUnavailableError: `impl` can't run here.
    """
    check_norm(x, delta, weight, bias, delta_bias, scale, factor)
    out, stream, _, _, values, scales = _ADD_LAYER_NORM_FP8(
        impl, x, delta, weight, bias, delta_bias, scale, factor, eps
    )
    return out, stream, Quantized(values, scales)


def _reference(
    x: Tensor,
    delta: Tensor,
    weight: Tensor,
    bias: Tensor,
    delta_bias: Tensor | None,
    scale: Tensor | None,
    factor: Tensor | None,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    out, stream, mean, rstd = norm_reference(x, delta, weight, bias, delta_bias, scale, factor, eps)
    return (out, stream, mean, rstd, *quantized_reference(out))


_ADD_LAYER_NORM_FP8 = declare(
    "add_layer_norm_fp8",
    _reference,
    triton=triton("add_layer_norm", "forward_fp8", unfit=unfit_for_e4m3),
    gradient=norm_gradient("values", "scales"),
)
