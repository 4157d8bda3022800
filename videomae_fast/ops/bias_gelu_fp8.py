"""Bias and GELU (erf) whose result comes in e4m3 too, made in the same pass."""

from __future__ import annotations

from torch import Tensor

from videomae_fast.ops._declare import Gradient, declare, triton
from videomae_fast.ops.bias_gelu import BACKWARD, gelu_reference
from videomae_fast.ops.quantize_rows import Quantized, quantized_reference, unfit_for_e4m3


def bias_gelu_fp8(x: Tensor, bias: Tensor, *, impl: str = "auto") -> tuple[Tensor, Quantized]:
    """:func:`videomae_fast.ops.bias_gelu`, and its result as ``quantize_rows`` has it.

    Args:
        x: [..., D], the output of a matmul, its bias not yet added.
        bias: [D].
        impl: "auto", "triton" (CUDA) or "reference".

    Returns:
        [..., D], dtype of `x`; and its rows in e4m3, without a gradient of their own.

    Raises:
        ValueError: wrong shapes.
        BackendUnavailableError: `impl` can't run here.
    """
    if bias.shape != x.shape[-1:]:
        raise ValueError(f"bias must be [{x.shape[-1]}], got {list(bias.shape)}")
    out, values, scale = _BIAS_GELU_FP8(impl, x, bias)
    return out, Quantized(values, scale)


def _reference(x: Tensor, bias: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    out = gelu_reference(x, bias)
    return (out, *quantized_reference(out))


_BIAS_GELU_FP8 = declare(
    "bias_gelu_fp8",
    _reference,
    triton=triton("bias_gelu_fp8", "forward", unfit=unfit_for_e4m3),
    gradient=Gradient(BACKWARD, of=("x", "bias"), results=("out", "values", "scale")),
)
