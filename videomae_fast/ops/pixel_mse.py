"""Normalised-pixel MSE straight from uint8 frames, at the tokens in the loss only.

The official code builds the fp32 target of every token of every clip and then throws half away;
here a target exists only while its token's loss is computed.
"""

from __future__ import annotations

from typing import Any

import torch
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
from videomae_fast.ops.checks import check_frames, check_index
from videomae_fast.ops.pixel_target import flat_cubes, pixel_target


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
        ignore_flat: weight 0 for cubes all of whose channels are flat, that is with a standard
            deviation of at most one grey level.

    Returns:
        (loss_sum, weight_sum), scalars, fp32 (fp64 if `prediction` is).

    Raises:
        ValueError: wrong shapes or dtypes, or a size that does not divide.
        BackendUnavailableError: `impl` can't run here.

    Source: engine_for_pretraining.py of the official V2 code.
    """
    check_pixels(prediction, frames, index, weight, tubelet_size, patch_size)
    out: tuple[Tensor, Tensor] = _pixel_mse(
        prediction, frames, index, weight, tubelet_size, patch_size, normalize, ignore_flat, impl
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
    if list(prediction.shape) != [b, k, values]:
        raise ValueError(f"prediction must be {[b, k, values]}, got {list(prediction.shape)}")
    if weight is not None and (weight.shape != index.shape or weight.dtype != torch.float32):
        raise ValueError(f"weight must be fp32 [{b}, {k}], got {weight.dtype} {list(weight.shape)}")


@torch.library.custom_op("videomae_fast::pixel_mse", mutates_args=())
def _pixel_mse(
    prediction: Tensor,
    frames: Tensor,
    index: Tensor,
    weight: Tensor | None,
    tubelet_size: int,
    patch_size: int,
    normalize: bool,
    ignore_flat: bool,
    impl: str,
) -> tuple[Tensor, Tensor]:
    out: tuple[Tensor, Tensor] = FORWARD(
        impl, prediction, frames, index, weight, tubelet_size, patch_size, normalize, ignore_flat
    )
    return out


@_pixel_mse.register_fake
def _(
    prediction: Tensor,
    frames: Tensor,
    index: Tensor,
    weight: Tensor | None,
    tubelet_size: int,
    patch_size: int,
    normalize: bool,
    ignore_flat: bool,
    impl: str,
) -> tuple[Tensor, Tensor]:
    dtype = compute_dtype(prediction)
    return prediction.new_empty((), dtype=dtype), prediction.new_empty((), dtype=dtype)


@torch.library.custom_op("videomae_fast::pixel_mse_backward", mutates_args=())
def _pixel_mse_backward(
    grad: Tensor,
    prediction: Tensor,
    frames: Tensor,
    index: Tensor,
    weight: Tensor | None,
    tubelet_size: int,
    patch_size: int,
    normalize: bool,
    ignore_flat: bool,
    impl: str,
) -> Tensor:
    out: Tensor = BACKWARD(
        impl,
        grad,
        prediction,
        frames,
        index,
        weight,
        tubelet_size,
        patch_size,
        normalize,
        ignore_flat,
    )
    return out


@_pixel_mse_backward.register_fake
def _(
    grad: Tensor,
    prediction: Tensor,
    frames: Tensor,
    index: Tensor,
    weight: Tensor | None,
    tubelet_size: int,
    patch_size: int,
    normalize: bool,
    ignore_flat: bool,
    impl: str,
) -> Tensor:
    return torch.empty_like(prediction, memory_format=torch.contiguous_format)


def _setup(ctx: Any, inputs: tuple[object, ...], output: tuple[Tensor, Tensor]) -> None:
    prediction, frames, index, weight, *settings = inputs
    ctx.save_for_backward(prediction, frames, index, weight)
    ctx.settings = settings
    ctx.mark_non_differentiable(output[1])


def _backward(ctx: Any, grad: Tensor, grad_weight: Tensor) -> tuple[Tensor | None, ...]:
    prediction, frames, index, weight = ctx.saved_tensors
    out = _pixel_mse_backward(grad, prediction, frames, index, weight, *ctx.settings)
    return (out, *[None] * 8)


_pixel_mse.register_autograd(_backward, setup_context=_setup)
first_only(_pixel_mse_backward, "pixel_mse")


def compute_dtype(prediction: Tensor) -> torch.dtype:
    """What the loss is computed in."""
    return torch.promote_types(prediction.dtype, torch.float32)


def reference_difference(
    prediction: Tensor,
    frames: Tensor,
    index: Tensor,
    weight: Tensor | None,
    tubelet_size: int,
    patch_size: int,
    normalize: bool,
    ignore_flat: bool,
) -> tuple[Tensor, Tensor]:
    """(prediction minus target [B, K, C], weights after the flat cubes [B, K])."""
    dtype = compute_dtype(prediction)
    cube = {"tubelet_size": tubelet_size, "patch_size": patch_size}
    target = pixel_target(frames, index, normalize=normalize, dtype=dtype, **cube)
    ones = torch.ones(index.shape, dtype=dtype, device=index.device)
    weights = ones if weight is None else weight.to(dtype)
    if ignore_flat:
        weights = weights.masked_fill(flat_cubes(frames, index, **cube), 0)
    return prediction.to(dtype) - target, weights


def reference_sums(difference: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """The loss's two sums."""
    # where, not a product: a token of weight 0 counts for nothing even if its prediction is inf
    counted = torch.where(weights == 0, 0.0, weights * difference.square().mean(-1))
    return counted.sum(), weights.sum()


def reference_gradient(difference: Tensor, weights: Tensor, grad: Tensor | float) -> Tensor:
    """The prediction's gradient where that of loss_sum is `grad`."""
    factor = (grad * weights * (2.0 / difference.shape[-1]))[..., None]
    return torch.where(weights[..., None] == 0, 0.0, factor * difference)


def _forward_reference(*args: Any) -> tuple[Tensor, Tensor]:
    return reference_sums(*reference_difference(*args))


def _backward_reference(grad: Tensor, prediction: Tensor, *args: Any) -> Tensor:
    difference, weights = reference_difference(prediction, *args)
    return reference_gradient(difference, weights, grad.to(weights.dtype)).to(prediction.dtype)


def _forward_native(*args: Any) -> tuple[Tensor, Tensor]:
    loss_sum, weight_sum, _ = _native.pixel_mse(*args)
    return loss_sum, weight_sum


def _backward_native(grad: Tensor, *args: Any) -> Tensor:
    return _native.pixel_mse_backward(float(grad), *args)


def native_why_not(prediction: Tensor, frames: Tensor, index: Tensor, *_: Any) -> str | None:
    """Why the native library can't serve the loss, its gradient or both, or None."""
    if prediction.dtype != torch.float32:
        return f"the native library takes fp32 predictions, not {prediction.dtype}"
    return needs_native(prediction, frames, index)


def _backward_native_why_not(grad: Tensor, *args: Any) -> str | None:
    return native_why_not(*args)


# The kernels sum squares of bytes in 32 bits.
_TRITON_PIXELS = 33_000


def triton_why_not(
    prediction: Tensor,
    frames: Tensor,
    index: Tensor,
    weight: Tensor | None,
    tubelet_size: int,
    patch_size: int,
    normalize: bool,
    ignore_flat: bool,
) -> str | None:
    """Why the kernels can't serve the loss, its gradient or both, or None."""
    if prediction.dtype not in (torch.float32, torch.bfloat16, torch.float16):
        return f"the kernels take fp32, bf16 and fp16 predictions, not {prediction.dtype}"
    pixels = tubelet_size * patch_size**2
    if pixels > _TRITON_PIXELS:
        return f"the kernels take cubes of at most {_TRITON_PIXELS} pixels, not {pixels}"
    return needs_triton(prediction, frames, index, weight)


def _backward_triton_why_not(grad: Tensor, *args: Any) -> str | None:
    return needs_triton(grad) or triton_why_not(*args)


FORWARD = register(
    "pixel_mse",
    triton=Backend(lazy("pixel_mse", "pixel_mse"), triton_why_not),
    native=Backend(_forward_native, native_why_not),
    reference=Backend(_forward_reference, always),
)
BACKWARD = register(
    "pixel_mse_backward",
    triton=Backend(lazy("pixel_mse", "pixel_mse_backward"), _backward_triton_why_not),
    native=Backend(_backward_native, _backward_native_why_not),
    reference=Backend(_backward_reference, always),
)
