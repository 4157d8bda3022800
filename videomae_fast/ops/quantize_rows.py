"""Rows in e4m3 with a scale each: the operands of fp8 matmuls."""

from __future__ import annotations

from typing import Final, NamedTuple

import torch
from torch import Tensor

from videomae_fast.ops._declare import declare, triton

E4M3: Final = torch.float8_e4m3fn
CAPABILITY: Final = (8, 9)  # of a GPU that has it
_INFINITY = 0x7F800000  # fp32's bits; its exponent begins at bit 23


class Quantized(NamedTuple):
    """Rows that are ``values * scale[..., None]``.

    Attributes:
        values: e4m3 [..., D].
        scale: fp32 [...], powers of two.
    """

    values: Tensor
    scale: Tensor


def quantize_rows(x: Tensor, *, factor: Tensor | None = None, impl: str = "auto") -> Quantized:
    """The rows of ``x * factor`` in e4m3, each divided by a scale of its own.

    The scale is the least power of two by which all of a row is within ±448, e4m3's range, and
    2⁻¹⁰⁸ at least. So the quotients are exact, and what is lost is e4m3's rounding alone: half a
    unit of 4 bits, at most 2⁻⁴ of a value, or 2⁻¹⁷ of the row's largest magnitude where that is
    more. A row with a value that is not finite has the scale NaN and is NaN.

    Args:
        x: [..., D], D at least 1; no gradient.
        factor: fp32 [D], or None.
        impl: "auto", "triton" (CUDA) or "reference".

    Returns:
        The rows, e4m3 [..., D], and their scales, fp32 [...].

    Raises:
        ValueError: wrong shapes.
        BackendUnavailableError: `impl` can't run here.
    """
    if x.ndim == 0 or x.shape[-1] == 0:
        raise ValueError(f"x must be [..., D] with a D of at least 1, got {list(x.shape)}")
    if factor is not None and factor.shape != x.shape[-1:]:
        raise ValueError(f"factor must be [{x.shape[-1]}], got {list(factor.shape)}")
    return Quantized(*_QUANTIZE(impl, x.detach(), None if factor is None else factor.detach()))


def why_no_e4m3(device: torch.device) -> str | None:
    """Why a GPU has no e4m3, or None."""
    found = torch.cuda.get_device_capability(device)
    if found < CAPABILITY:
        needed, has = (".".join(map(str, pair)) for pair in (CAPABILITY, found))
        return f"8-bit floats need a GPU of capability {needed}, and this one has {has}"
    return None


def unfit_for_e4m3(x: Tensor) -> str | None:
    """Why a kernel that writes e4m3 can't run where `x` is, or None."""
    return why_no_e4m3(x.device) if x.is_cuda else None


def _reference(x: Tensor, factor: Tensor | None) -> tuple[Tensor, Tensor]:
    return quantized_reference(x if factor is None else x.float() * factor.float())


def quantized_reference(x: Tensor) -> tuple[Tensor, Tensor]:
    """In plain torch, of any floating type; the same bits as the kernels'."""
    x = x.float()
    bits = x.abs().amax(-1).view(torch.int32)  # amax hands on NaN, whose bits are the largest
    # The exponent, one more where the mantissa is above that of 448 = 1.75 · 2⁸
    exponent = ((bits.clamp(min=27 << 23) + 0x1FFFFF) & _INFINITY) - (8 << 23)
    unknown = bits >= _INFINITY
    scale = exponent.view(torch.float32).masked_fill(unknown, torch.nan)
    inverse = ((254 << 23) - exponent).view(torch.float32).masked_fill(unknown, torch.nan)
    return (x * inverse[..., None]).to(E4M3), scale


_QUANTIZE = declare(
    "quantize_rows", _reference, triton=triton("quantize_rows", "forward", unfit=unfit_for_e4m3)
)
