"""Normalised-pixel MSE straight from uint8 frames, at the tokens in the loss only.

The official code builds the fp32 target of every token of every clip and then throws half away;
here a target exists only while its token's loss is computed.
"""

from __future__ import annotations

import torch
from torch import Tensor

from videomae_fast.ops._declare import Gradient, declare, native, triton
from videomae_fast.ops._native import in_fp32, pixels
from videomae_fast.ops.checks import check_frames, check_index
from videomae_fast.ops.cubes import gather_cubes
from videomae_fast.ops.pixel_target import flat_among, target_of
from videomae_fast.ops.registry import FP32_BF16


def pixel_mse(
    prediction: Tensor,
    frames: Tensor,
    index: Tensor,
    weight: Tensor | None = None,
    *,
    tubelet_size: int = 2,
    patch_size: int = 16,
    normalize: bool = True,
    ignore_flat: bool = False,
    impl: str = "auto",
) -> tuple[Tensor, Tensor]:
    """Sum over tokens of weight times the token's mean squared error, and the sum of the weights.

    The loss is the first over the second; they are kept apart so that micro-batches and ranks with
    unequal weights add up to the exact mean.

    The target of a token is its cube as ``uint8 / 255``, and with `normalize` each colour channel
    has its mean subtracted and is divided by ``std + 1e-6`` (unbiased, over the
    tubelet * patch**2 pixels). Everything is computed in fp32 (fp64 if `prediction` is).

    Args:
        prediction: [B, K, 3 * tubelet_size * patch_size**2] in the order (p0, p1, p2, c).
        frames: uint8 [B, T, H, W, 3].
        index: int32 [B, K], token positions (not checked on a GPU).
        weight: fp32 [B, K], or None for ones; no gradient.
        tubelet_size: length of a token's cube, in frames.
        patch_size: side of a token's cube, in pixels.
        normalize: targets are normalised as said above.
        ignore_flat: weight 0 for cubes all of whose channels are flat, that is with a standard
            deviation of at most one grey level.
        impl: "auto", "triton" (CUDA), "native" (CPU) or "reference".

    Returns:
        (loss_sum, weight_sum), scalars, fp32 (fp64 if `prediction` is).

    Raises:
        ValueError: wrong shapes or dtypes, or a size that does not divide.
        BackendUnavailableError: `impl` can't run here.

    Source: engine_for_pretraining.py of the official V2 code.
    """
    check_pixels(prediction, frames, index, weight, tubelet_size, patch_size)
    out: tuple[Tensor, Tensor] = _PIXEL_MSE(
        impl, prediction, frames, index, weight, tubelet_size, patch_size, normalize, ignore_flat
    )
    return out


def check_pixels(
    prediction: Tensor,
    frames: Tensor,
    index: Tensor,
    weight: Tensor | None,
    tubelet_size: int,
    patch_size: int,
) -> None:
    """Checks shapes and dtypes of what the pixel loss takes.

    Raises:
        ValueError: one is wrong, or a size does not divide.
    """
    check_frames(frames, tubelet_size, patch_size)
    check_index(index, frames.shape[0])
    b, k = index.shape
    values = 3 * tubelet_size * patch_size**2
    if prediction.shape != (b, k, values):
        raise ValueError(f"prediction must be {[b, k, values]}, got {list(prediction.shape)}")
    if weight is not None and (weight.shape != index.shape or weight.dtype != torch.float32):
        raise ValueError(f"weight must be fp32 [{b}, {k}], got {weight.dtype} {list(weight.shape)}")


def compute_dtype(prediction: Tensor) -> torch.dtype:
    """What the loss is computed in."""
    return torch.promote_types(prediction.dtype, torch.float32)


def compared(
    prediction: Tensor, cubes: Tensor, weight: Tensor | None, normalize: bool, ignore_flat: bool
) -> tuple[Tensor, Tensor]:
    """(prediction minus target [B, K, C], weights after the flat cubes [B, K])."""
    dtype = compute_dtype(prediction)
    difference = prediction.to(dtype) - target_of(cubes, normalize, dtype)
    weights = difference.new_ones(difference.shape[:2]) if weight is None else weight.to(dtype)
    if ignore_flat:
        weights = weights.masked_fill(flat_among(cubes), 0)
    return difference, weights


def sums_of(difference: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """The loss's two sums."""
    # where, not a product: a token of weight 0 counts for nothing even if its prediction is inf
    counted = torch.where(weights == 0, 0.0, weights * difference.square().mean(-1))
    return counted.sum(), weights.sum()


def gradient_of(difference: Tensor, weights: Tensor, grad: Tensor | float) -> Tensor:
    """The prediction's gradient where that of loss_sum is `grad`."""
    factor = (grad * weights * (2.0 / difference.shape[-1]))[..., None]
    return torch.where(weights[..., None] == 0, 0.0, factor * difference)


def _forward_reference(
    prediction: Tensor,
    frames: Tensor,
    index: Tensor,
    weight: Tensor | None,
    tubelet_size: int,
    patch_size: int,
    normalize: bool,
    ignore_flat: bool,
) -> tuple[Tensor, Tensor]:
    cubes = gather_cubes(frames, index, tubelet_size, patch_size)
    return sums_of(*compared(prediction, cubes, weight, normalize, ignore_flat))


def _backward_reference(
    grad: Tensor,
    prediction: Tensor,
    frames: Tensor,
    index: Tensor,
    weight: Tensor | None,
    tubelet_size: int,
    patch_size: int,
    normalize: bool,
    ignore_flat: bool,
) -> Tensor:
    cubes = gather_cubes(frames, index, tubelet_size, patch_size)
    difference, weights = compared(prediction, cubes, weight, normalize, ignore_flat)
    return gradient_of(difference, weights, grad.to(weights.dtype)).to(prediction.dtype)


# The kernels sum squares of bytes in 32 bits.
_TRITON_PIXELS = 33_000


def triton_unfit(tubelet_size: int, patch_size: int) -> str | None:
    """Why the kernels can't serve the loss, its gradient or both, or None."""
    pixels = tubelet_size * patch_size**2
    if pixels > _TRITON_PIXELS:
        return f"the kernels take cubes of at most {_TRITON_PIXELS} pixels, not {pixels}"
    return None


_PIXEL_MSE = declare(
    "pixel_mse",
    _forward_reference,
    triton=triton("pixel_mse", "pixel_mse", unfit=triton_unfit),
    native=native(in_fp32(pixels.pixel_mse, None, None), dtypes=FP32_BF16),
    gradient=Gradient(
        _backward_reference,
        of=("prediction",),
        backends={
            "triton": triton("pixel_mse", "pixel_mse_backward", unfit=triton_unfit),
            "native": native(in_fp32(pixels.pixel_mse_backward, "prediction"), dtypes=FP32_BF16),
        },
    ),
)
