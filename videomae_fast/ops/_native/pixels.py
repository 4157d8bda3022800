"""The native ops that read uint8 frames: patch gather and normalised-pixel MSE."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from videomae_fast.ops._native.calls import call, contiguous


def patch_gather(
    frames: Tensor,
    index: Tensor,
    tubelet_size: int,
    patch_size: int,
    mean: Sequence[float],
    std: Sequence[float],
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Patches ``(uint8 / 255 - mean_c) / std_c``, bit for bit the reference's.

    Args:
        frames: uint8 [B, T, H, W, 3].
        index: int32 [B, K], token positions.
        dtype: float32, bfloat16 or float16.

    Returns:
        [B, K, 3 * tubelet_size * patch_size**2], order (c, p0, p1, p2).

    Raises:
        IndexError: a position outside the grid.
    """
    frames, index = contiguous(frames, index)
    batch, count, height, width, _ = frames.shape
    # Every value that a pixel can have, with the reference's own arithmetic.
    levels = torch.arange(256, dtype=torch.float32) / 255
    offset, scale = torch.tensor([list(mean), list(std)], dtype=torch.float32)
    table = ((levels - offset[:, None]) / scale[:, None]).to(dtype)
    per_clip = index.shape[1]
    out = torch.empty((batch, per_clip, 3 * tubelet_size * patch_size**2), dtype=dtype)
    call(
        "vmf_patch_gather",
        "ppppiiiiiiii",
        frames,
        index,
        table,
        out,
        dtype.itemsize,
        batch,
        per_clip,
        count,
        height,
        width,
        tubelet_size,
        patch_size,
        index=(index,),
    )
    return out


def pixel_mse(*args: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Sum of weight times the token's mean squared error, sum of weights, and the errors.

    Args:
        prediction: fp32 [B, K, 3 * tubelet_size * patch_size**2], order (p0, p1, p2, c).
        frames: uint8 [B, T, H, W, 3].
        index: int32 [B, K], token positions.
        weight: fp32 [B, K] or None for ones.
        normalize: per-cube, per-channel normalised target (at least 2 pixels per cube).
        ignore_flat: weight 0 for cubes whose standard deviation is at most one grey level in
            every channel.

    Returns:
        (loss_sum, weight_sum): fp32 scalars, accumulated in fp64; token_loss: fp32 [B, K], 0 where
        the weight is 0. The same bits for any thread count.

    Raises:
        IndexError: a position outside the grid.
        ValueError: too large a size (cubes up to 66,000 pixels, patches up to 256 wide).
    """
    sums, token_loss, _ = _pixel_mse(True, None, *args)
    return (*_scalars(sums), token_loss)


def pixel_mse_backward(grad: Tensor | float, *args: Any) -> Tensor:
    """The prediction's gradient: ``grad * weight * 2 / C * (prediction - target)``, fp32.

    `grad` is the gradient of loss_sum; the rest and the errors are those of `pixel_mse`.
    """
    return _pixel_mse(False, float(grad), *args)[2]


def pixel_mse_with_gradient(*args: Any) -> tuple[Tensor, Tensor, Tensor]:
    """(loss_sum, weight_sum, gradient of ``scale * loss_sum``) in one pass.

    The arguments are those of `pixel_mse`, then `scale`; the same bits as its and those of
    `pixel_mse_backward`; so are the errors.
    """
    sums, _, gradient = _pixel_mse(True, args[-1], *args[:-1])
    return (*_scalars(sums), gradient)


def _scalars(sums: Tensor) -> tuple[Tensor, Tensor]:
    loss_sum, weight_sum = sums.to(torch.float32)
    return loss_sum.clone(), weight_sum.clone()


def _pixel_mse(
    with_loss: bool,
    scale: float | None,
    prediction: Tensor,
    frames: Tensor,
    index: Tensor,
    weight: Tensor | None,
    tubelet_size: int,
    patch_size: int,
    normalize: bool,
    ignore_flat: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """fp64 sums and token_loss `with_loss`; the gradient of ``scale * loss_sum`` with a scale.

    What was not asked for is left unwritten.
    """
    prediction, frames, index, weight = contiguous(prediction, frames, index, weight)
    sizes = (*index.shape, *frames.shape[1:4], tubelet_size, patch_size)
    tokens = index.shape if with_loss else (0,)
    token_loss = torch.empty(tokens, dtype=torch.float32)
    token_weight = torch.empty(tokens, dtype=torch.float32)
    sums = torch.empty(2, dtype=torch.float64)
    gradient = torch.empty((0,) if scale is None else prediction.shape, dtype=torch.float32)
    call(
        "vmf_pixel_mse",
        "ppppppppfiiiiiiibb",
        prediction,
        frames,
        index,
        weight,
        token_loss if with_loss else None,
        token_weight if with_loss else None,
        sums if with_loss else None,
        None if scale is None else gradient,
        1.0 if scale is None else scale,
        *sizes,
        int(normalize),
        int(ignore_flat),
        index=(index,),
    )
    return sums, token_loss, gradient
