"""Normalised-pixel MSE and its gradient in one pass, and backward that starts from that gradient.

Backward of :func:`videomae_fast.ops.pixel_mse` has to read the prediction and the frames again,
because it learns only then by which number its gradient is to be multiplied. Who knows that number
beforehand, as a training step does, reads them once: docs/kernels/pixel_mse.md counts the bytes.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from videomae_fast.ops._declare import declare, native, triton
from videomae_fast.ops._native import in_fp32, pixels
from videomae_fast.ops.cubes import gather_cubes
from videomae_fast.ops.pixel_mse import check_pixels, compared, gradient_of, sums_of, triton_unfit
from videomae_fast.ops.registry import FP32_BF16


def pixel_mse_with_gradient(
    prediction: Tensor,
    frames: Tensor,
    index: Tensor,
    weight: Tensor | None = None,
    *,
    scale: float = 1.0,
    tubelet_size: int = 2,
    patch_size: int = 16,
    normalize: bool = True,
    ignore_flat: bool = False,
    impl: str = "auto",
) -> tuple[Tensor, Tensor, Tensor]:
    """:func:`videomae_fast.ops.pixel_mse` and the gradient of ``scale * loss_sum``.

    Nothing here has an autograd graph: :func:`gradient_root` hands the gradient to the prediction.

    Args:
        prediction: as of :func:`~videomae_fast.ops.pixel_mse`, and so are the next three.
        frames: uint8 [B, T, H, W, 3].
        index: int32 [B, K].
        weight: fp32 [B, K], or None for ones.
        scale: a number, not a tensor. The gradient is rounded once, with it, to the prediction's
            dtype. In fp16, whose smallest number is 6e-8, a scale of one over the batch's tokens
            would round most of it to 0: leave it at 1, where values are about 1e-3, or give it the
            loss scale.
        tubelet_size: as of ``pixel_mse``, and so are the rest and the errors.
        patch_size: side of a token's cube, in pixels.
        normalize: targets are normalised by cube and channel.
        ignore_flat: weight 0 for cubes without texture.
        impl: "auto", "triton" (CUDA), "native" (CPU) or "reference".

    Returns:
        (loss_sum, weight_sum, gradient): two scalars like those of `pixel_mse`, and [B, K, C],
        contiguous, in the dtype of `prediction`; 0 for tokens of weight 0.
    """
    check_pixels(prediction, frames, index, weight, tubelet_size, patch_size)
    plain = prediction.detach() if prediction.requires_grad else prediction
    settings = (tubelet_size, patch_size, normalize, ignore_flat, scale)
    out: tuple[Tensor, Tensor, Tensor] = _PIXEL_MSE_WITH_GRADIENT(
        impl, plain, frames, index, weight, *settings
    )
    return out


def gradient_root(prediction: Tensor, gradient: Tensor) -> Tensor:
    """Where backward starts from a gradient that is known already: see :func:`start_backward`.

    ``prediction.backward(gradient)`` does the same, but keeps both of them alive until the whole
    backward pass is over. Here neither `prediction` nor, after its first use, `gradient` is kept.

    The result has no elements. So its own gradient carries no number that would have to be
    multiplied in, and none is dropped.

    Args:
        prediction: with a graph.
        gradient: of its shape and dtype.

    Returns:
        A tensor without elements, for :func:`start_backward`.

    Raises:
        ValueError: their shapes or dtypes differ.
    """
    if gradient.shape != prediction.shape or gradient.dtype != prediction.dtype:
        raise ValueError(
            f"the gradient of a {prediction.dtype} {list(prediction.shape)} can't be "
            f"{gradient.dtype} {list(gradient.shape)}"
        )
    root: Tensor = _GRADIENT_ROOT(prediction, gradient)
    return root


def start_backward(root: Tensor) -> None:
    """Backward from a :func:`gradient_root`: adds to the ``grad`` of every leaf before it.

    Args:
        root: what :func:`gradient_root` returned.
    """
    torch.autograd.backward(root, torch.empty_like(root))


def _reference(
    prediction: Tensor,
    frames: Tensor,
    index: Tensor,
    weight: Tensor | None,
    tubelet_size: int,
    patch_size: int,
    normalize: bool,
    ignore_flat: bool,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor]:
    cubes = gather_cubes(frames, index, tubelet_size, patch_size)
    difference, weights = compared(prediction, cubes, weight, normalize, ignore_flat)
    gradient = gradient_of(difference, weights, scale).to(prediction.dtype)
    return (*sums_of(difference, weights), gradient)


_PIXEL_MSE_WITH_GRADIENT = declare(
    "pixel_mse_with_gradient",
    _reference,
    triton=triton("pixel_mse", "pixel_mse_with_gradient", unfit=triton_unfit),
    native=native(
        in_fp32(pixels.pixel_mse_with_gradient, None, None, "prediction"), dtypes=FP32_BF16
    ),
)


def _root(prediction: Tensor, gradient: Tensor) -> Tensor:
    return prediction.new_empty(0)


def _root_setup(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
    ctx.save_for_backward(inputs[1])


def _root_backward(ctx: Any, _: Tensor) -> tuple[Tensor, None]:
    if torch.is_grad_enabled():
        raise RuntimeError(
            "a gradient computed in the forward pass has no derivative of its own: use pixel_mse's "
            "loss without create_graph"
        )
    (gradient,) = ctx.saved_tensors
    return gradient, None


_GRADIENT_ROOT = torch.library.custom_op("videomae_fast::gradient_root", _root, mutates_args=())
_GRADIENT_ROOT.register_fake(_root)
_GRADIENT_ROOT.register_autograd(_root_backward, setup_context=_root_setup)
