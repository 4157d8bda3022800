"""The native ops that read uint8 frames: patch gather and normalised-pixel MSE."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from videomae_fast.ops._native.calls import call, expect


def _frames(frames: Tensor) -> Tensor:
    if frames.ndim != 5 or frames.shape[-1] != 3:
        raise ValueError(f"frames must be uint8 [B, T, H, W, 3], got {list(frames.shape)}")
    return expect(frames, "frames", torch.uint8, tuple(frames.shape))


def _index(index: Tensor, batch: int) -> Tensor:
    if index.ndim != 2:
        raise ValueError(f"index must be int32 [B, K], got {list(index.shape)}")
    return expect(index, "index", torch.int32, (batch, index.shape[1]))


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
        ValueError: wrong shape, dtype or size.
    """
    if dtype not in (torch.float32, torch.bfloat16, torch.float16):
        raise ValueError(f"the native patch gather writes fp32, bf16 and fp16, not {dtype}")
    frames = _frames(frames)
    batch, count, height, width, _ = frames.shape
    index = _index(index, batch)
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


def pixel_mse(
    prediction: Tensor,
    frames: Tensor,
    index: Tensor,
    weight: Tensor | None,
    tubelet_size: int,
    patch_size: int,
    normalize: bool,
    ignore_flat: bool,
) -> tuple[Tensor, Tensor, Tensor]:
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
        ValueError: wrong shape, dtype or size (cubes up to 66,000 pixels, patches up to 256 wide).
    """
    settings = (tubelet_size, patch_size, normalize, ignore_flat)
    sums, token_loss, _ = _pixel_mse(True, None, prediction, frames, index, weight, *settings)
    return (*_scalars(sums), token_loss)


def pixel_mse_backward(
    grad: float,
    prediction: Tensor,
    frames: Tensor,
    index: Tensor,
    weight: Tensor | None,
    tubelet_size: int,
    patch_size: int,
    normalize: bool,
    ignore_flat: bool,
) -> Tensor:
    """The prediction's gradient: ``grad * weight * 2 / C * (prediction - target)``, fp32.

    `grad` is the gradient of loss_sum; the rest and the errors are those of `pixel_mse`.
    """
    settings = (tubelet_size, patch_size, normalize, ignore_flat)
    return _pixel_mse(False, grad, prediction, frames, index, weight, *settings)[2]


def pixel_mse_with_gradient(
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
    """(loss_sum, weight_sum, gradient of ``scale * loss_sum``) in one pass.

    The same bits as `pixel_mse` and `pixel_mse_backward`; so are the errors.
    """
    settings = (tubelet_size, patch_size, normalize, ignore_flat)
    sums, _, gradient = _pixel_mse(True, scale, prediction, frames, index, weight, *settings)
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
    prediction, frames, index, weight, sizes = _loss_arguments(
        prediction, frames, index, weight, tubelet_size, patch_size
    )
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


def _loss_arguments(
    prediction: Tensor,
    frames: Tensor,
    index: Tensor,
    weight: Tensor | None,
    tubelet_size: int,
    patch_size: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor | None, tuple[int, ...]]:
    frames = _frames(frames)
    batch, count, height, width, _ = frames.shape
    index = _index(index, batch)
    per_clip = index.shape[1]
    values = 3 * tubelet_size * patch_size**2
    prediction = expect(prediction, "prediction", torch.float32, (batch, per_clip, values))
    if weight is not None:
        weight = expect(weight, "weight", torch.float32, (batch, per_clip))
    sizes = (batch, per_clip, count, height, width, tubelet_size, patch_size)
    return prediction, frames, index, weight, sizes
