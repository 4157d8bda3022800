"""Normalised-pixel MSE and its gradient in one pass, and backward that starts from that gradient.

Backward of :func:`videomae_fast.ops.pixel_mse` has to read the prediction and the frames again,
because it learns only then by which number its gradient is to be multiplied. Who knows that number
beforehand, as a training step does, reads them once: docs/kernels/pixel_mse.md counts the bytes.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from videomae_fast.ops import _native
from videomae_fast.ops._dispatch import Backend, always, lazy, register
from videomae_fast.ops.pixel_mse import (
    check_pixels,
    compute_dtype,
    native_why_not,
    reference_difference,
    reference_gradient,
    reference_sums,
    triton_why_not,
)


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
        scale: a number, not a tensor. The gradient is rounded once, with it, to the prediction's
            dtype. In fp16, whose smallest number is 6e-8, a scale of one over the batch's tokens
            would round most of it to 0: leave it at 1, where values are about 1e-3, or give it the
            loss scale.

    The other arguments are those of `pixel_mse`, and so are the errors.

    Returns:
        (loss_sum, weight_sum, gradient): two scalars like those of `pixel_mse`, and [B, K, C],
        contiguous, in the dtype of `prediction`; 0 for tokens of weight 0.
    """
    check_pixels(prediction, frames, index, weight, tubelet_size, patch_size)
    settings = (tubelet_size, patch_size, normalize, ignore_flat, scale, impl)
    out: tuple[Tensor, Tensor, Tensor] = _pixel_mse_with_gradient(
        prediction.detach(), frames, index, weight, *settings
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

    Raises:
        ValueError: their shapes or dtypes differ.
    """
    if gradient.shape != prediction.shape or gradient.dtype != prediction.dtype:
        raise ValueError(
            f"the gradient of a {prediction.dtype} {list(prediction.shape)} can't be "
            f"{gradient.dtype} {list(gradient.shape)}"
        )
    root: Tensor = _gradient_root(prediction, gradient)
    return root


def start_backward(root: Tensor) -> None:
    """Backward from a :func:`gradient_root`: adds to the ``grad`` of every leaf before it."""
    torch.autograd.backward(root, torch.empty_like(root))


@torch.library.custom_op("videomae_fast::pixel_mse_with_gradient", mutates_args=())
def _pixel_mse_with_gradient(
    prediction: Tensor,
    frames: Tensor,
    index: Tensor,
    weight: Tensor | None,
    tubelet_size: int,
    patch_size: int,
    normalize: bool,
    ignore_flat: bool,
    scale: float,
    impl: str,
) -> tuple[Tensor, Tensor, Tensor]:
    settings = (tubelet_size, patch_size, normalize, ignore_flat, scale)
    out: tuple[Tensor, Tensor, Tensor] = WITH_GRADIENT(
        impl, prediction, frames, index, weight, *settings
    )
    return out


@_pixel_mse_with_gradient.register_fake
def _(
    prediction: Tensor,
    frames: Tensor,
    index: Tensor,
    weight: Tensor | None,
    tubelet_size: int,
    patch_size: int,
    normalize: bool,
    ignore_flat: bool,
    scale: float,
    impl: str,
) -> tuple[Tensor, Tensor, Tensor]:
    dtype = compute_dtype(prediction)
    sums = prediction.new_empty((), dtype=dtype), prediction.new_empty((), dtype=dtype)
    return (*sums, torch.empty_like(prediction, memory_format=torch.contiguous_format))


@torch.library.custom_op("videomae_fast::gradient_root", mutates_args=())
def _gradient_root(prediction: Tensor, gradient: Tensor) -> Tensor:
    return prediction.new_empty(0)


@_gradient_root.register_fake
def _(prediction: Tensor, gradient: Tensor) -> Tensor:
    return prediction.new_empty(0)


def _setup(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
    ctx.save_for_backward(inputs[1])


def _backward(ctx: Any, _: Tensor) -> tuple[Tensor, None]:
    if torch.is_grad_enabled():
        raise RuntimeError(
            "a gradient computed in the forward pass has no derivative of its own: use pixel_mse's "
            "loss without create_graph"
        )
    (gradient,) = ctx.saved_tensors
    return gradient, None


_gradient_root.register_autograd(_backward, setup_context=_setup)


def _reference(*args: Any) -> tuple[Tensor, Tensor, Tensor]:
    *inputs, scale = args
    difference, weights = reference_difference(*inputs)
    gradient = reference_gradient(difference, weights, scale).to(inputs[0].dtype)
    return (*reference_sums(difference, weights), gradient)


def _triton_why_not(*args: Any) -> str | None:
    return triton_why_not(*args[:-1])


WITH_GRADIENT = register(
    "pixel_mse_with_gradient",
    triton=Backend(lazy("pixel_mse", "pixel_mse_with_gradient"), _triton_why_not),
    native=Backend(_native.pixel_mse_with_gradient, native_why_not),
    reference=Backend(_reference, always),
)
