"""Normalised-pixel MSE straight from uint8 frames, at the tokens in the loss only.

The official code builds the fp32 target of every token of every clip and then throws half away;
here a target exists only while its token's loss is computed.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from videomae_fast.ops import _native
from videomae_fast.ops._dispatch import (
    Backend,
    always,
    lazy,
    needs_native,
    needs_triton,
    register,
)
from videomae_fast.ops.checks import check_frames, check_index
from videomae_fast.ops.cubes import gather_cubes

# A channel of a cube whose unbiased standard deviation is at most one grey level counts as flat:
# its target would be noise, amplified to unit variance.
FLAT_STD = 1.0 / 255.0


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
    check_frames(frames, tubelet_size, patch_size)
    check_index(index, frames.shape[0])
    b, k = index.shape
    values = 3 * tubelet_size * patch_size**2
    if list(prediction.shape) != [b, k, values]:
        raise ValueError(f"prediction must be {[b, k, values]}, got {list(prediction.shape)}")
    if weight is not None and (weight.shape != index.shape or weight.dtype != torch.float32):
        raise ValueError(f"weight must be fp32 [{b}, {k}], got {weight.dtype} {list(weight.shape)}")
    out: tuple[Tensor, Tensor] = _pixel_mse(
        prediction, frames, index, weight, tubelet_size, patch_size, normalize, ignore_flat, impl
    )
    return out


def pixel_target(
    frames: Tensor,
    index: Tensor,
    *,
    tubelet_size: int = 2,
    patch_size: int = 16,
    normalize: bool = True,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """The targets themselves, [B, K, 3 * tubelet_size * patch_size**2] in order (p0, p1, p2, c)."""
    cubes = gather_cubes(frames, index, tubelet_size, patch_size)
    pixels = cubes.flatten(2, 4).to(dtype) / 255  # [B, K, pixels, c]
    if normalize:
        mean = pixels.mean(dim=-2, keepdim=True)
        std = pixels.var(dim=-2, unbiased=True, keepdim=True).sqrt()
        pixels = (pixels - mean) / (std + 1e-6)
    return pixels.flatten(2)


def flat_cubes(frames: Tensor, index: Tensor, *, tubelet_size: int, patch_size: int) -> Tensor:
    """Which cubes are flat in every channel: bool [B, K]."""
    cubes = gather_cubes(frames, index, tubelet_size, patch_size).flatten(2, 4)
    # Integers, so that the decision is the same in every backend.
    n = cubes.shape[2]
    pixels = cubes.to(torch.int64)
    scatter = n * pixels.square().sum(-2) - pixels.sum(-2).square()  # n (n-1) var, grey levels²
    return (scatter <= n * (n - 1)).all(-1)


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
    dtype = _compute_dtype(prediction)
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


def _compute_dtype(prediction: Tensor) -> torch.dtype:
    return torch.promote_types(prediction.dtype, torch.float32)


def _effective_weight(
    frames: Tensor,
    index: Tensor,
    weight: Tensor | None,
    tubelet_size: int,
    patch_size: int,
    ignore_flat: bool,
    dtype: torch.dtype,
) -> Tensor:
    ones = torch.ones(index.shape, dtype=dtype, device=index.device)
    weights = ones if weight is None else weight.to(dtype)
    if ignore_flat:
        flat = flat_cubes(frames, index, tubelet_size=tubelet_size, patch_size=patch_size)
        weights = weights.masked_fill(flat, 0)
    return weights


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
    dtype = _compute_dtype(prediction)
    target = pixel_target(
        frames,
        index,
        tubelet_size=tubelet_size,
        patch_size=patch_size,
        normalize=normalize,
        dtype=dtype,
    )
    weights = _effective_weight(frames, index, weight, tubelet_size, patch_size, ignore_flat, dtype)
    per_token = (prediction.to(dtype) - target).square().mean(-1)
    # where, not a product: a token of weight 0 counts for nothing even if its prediction is inf
    counted = torch.where(weights == 0, 0.0, weights * per_token)
    return counted.sum(), weights.sum()


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
    dtype = _compute_dtype(prediction)
    target = pixel_target(
        frames,
        index,
        tubelet_size=tubelet_size,
        patch_size=patch_size,
        normalize=normalize,
        dtype=dtype,
    )
    weights = _effective_weight(
        frames, index, weight, tubelet_size, patch_size, ignore_flat, dtype
    )[..., None]
    scale = grad.to(dtype) * weights * (2.0 / prediction.shape[-1])
    out = torch.where(weights == 0, 0.0, scale * (prediction.to(dtype) - target))
    return out.to(prediction.dtype)


def _forward_native(*args: Any) -> tuple[Tensor, Tensor]:
    loss_sum, weight_sum, _ = _native.normalized_pixel_mse(*args)
    return loss_sum, weight_sum


def _backward_native(grad: Tensor, *args: Any) -> Tensor:
    return _native.normalized_pixel_mse_backward(float(grad), *args)


def _forward_native_why_not(
    prediction: Tensor, frames: Tensor, index: Tensor, *_: Any
) -> str | None:
    if prediction.dtype != torch.float32:
        return f"the native library takes fp32 predictions, not {prediction.dtype}"
    return needs_native(prediction, frames, index)


def _backward_native_why_not(grad: Tensor, *args: Any) -> str | None:
    return _forward_native_why_not(*args)


# The kernels sum squares of bytes in 32 bits.
_TRITON_PIXELS = 33_000


def _forward_triton_why_not(
    prediction: Tensor,
    frames: Tensor,
    index: Tensor,
    weight: Tensor | None,
    tubelet_size: int,
    patch_size: int,
    normalize: bool,
    ignore_flat: bool,
) -> str | None:
    if prediction.dtype not in (torch.float32, torch.bfloat16, torch.float16):
        return f"the kernels take fp32, bf16 and fp16 predictions, not {prediction.dtype}"
    pixels = tubelet_size * patch_size**2
    if pixels > _TRITON_PIXELS:
        return f"the kernels take cubes of at most {_TRITON_PIXELS} pixels, not {pixels}"
    return needs_triton(prediction, frames, index, weight)


def _backward_triton_why_not(grad: Tensor, *args: Any) -> str | None:
    return needs_triton(grad) or _forward_triton_why_not(*args)


FORWARD = register(
    "pixel_mse",
    triton=Backend(lazy("pixel_loss", "pixel_mse"), _forward_triton_why_not),
    native=Backend(_forward_native, _forward_native_why_not),
    reference=Backend(_forward_reference, always),
)
BACKWARD = register(
    "pixel_mse_backward",
    triton=Backend(lazy("pixel_loss", "pixel_mse_backward"), _backward_triton_why_not),
    native=Backend(_backward_native, _backward_native_why_not),
    reference=Backend(_backward_reference, always),
)
