"""Bilinear resize of uint8 frames without antialiasing: OpenCV's bytes, without OpenCV.

Validation, testing and AVA resize so in the official code (``cv2.INTER_LINEAR``); pre-training has
Pillow's antialiased filter instead, see :mod:`videomae_fast.ops.crop_resize`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from videomae_fast.ops._declare import declare, native, triton
from videomae_fast.ops._native import augment


def bilinear_resize(frames: Tensor, size: tuple[int, int], *, impl: str = "auto") -> Tensor:
    """Frames of another size, in fixed point as OpenCV computes them.

    Weights have 11 bits. Across, a place beyond the first or last column is that column; down, the
    weights stay and the rows are cut off. Sums of a row lose 4 bits, products 16 bits, the result
    2 more, rounded once.

    Args:
        frames: uint8 [T, H, W, 3].
        size: (height, width) in pixels.
        impl: "auto", "triton" (CUDA), "native" (CPU) or "reference": the same bytes.

    Returns:
        uint8 [T, height, width, 3]; `frames` itself where the size is the same.

    Raises:
        ValueError: frames of a wrong shape or dtype, or a size below 1.
        BackendUnavailableError: `impl` can't run here.

    Source: found by experiment against OpenCV 4.10.
    """
    if frames.ndim != 4 or frames.shape[-1] != 3 or frames.dtype != torch.uint8:
        raise ValueError(
            f"frames must be uint8 [T, H, W, 3], got {frames.dtype} {list(frames.shape)}"
        )
    if min(size) < 1 or min(frames.shape[1:3]) < 1:
        raise ValueError(f"frames {list(frames.shape)} can't be resized to {size}")
    if size == tuple(frames.shape[1:3]):
        return frames
    out: Tensor = _BILINEAR_RESIZE(impl, frames, *size)
    return out


def _reference(frames: Tensor, height: int, width: int) -> Tensor:
    size = (height, width)
    height, width = frames.shape[1:3]
    column, across = _cells(width, size[1], frames.device)
    outside = (column < 0) | (column >= width - 1)
    across = torch.where(outside, torch.zeros_like(across), across)
    column = column.clamp(0, width - 1)
    left, right = _weights(across)
    levels = frames.int()
    beside = (column + 1).clamp(max=width - 1)
    sums = left[:, None] * levels[:, :, column] + right[:, None] * levels[:, :, beside]
    row, down = _cells(height, size[0], frames.device)
    upper, lower = _weights(down)
    above = sums[:, row.clamp(0, height - 1)] >> 4
    below = sums[:, (row + 1).clamp(0, height - 1)] >> 4
    upper, lower = upper[:, None, None], lower[:, None, None]
    return (((upper * above >> 16) + (lower * below >> 16) + 2) >> 2).to(torch.uint8)


def _cells(length: int, size: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """For each output pixel the input pixel before its centre, and the fp32 share beyond that."""
    scale = 1.0 / (size / length)
    place = (torch.arange(size, dtype=torch.float64, device=device) + 0.5) * scale - 0.5
    place = place.float()
    cell = place.floor()
    return cell.long(), place - cell


def _weights(share: Tensor) -> tuple[Tensor, Tensor]:
    """Weights of a pixel and of the next one, int32, of 2048 together."""
    return ((1 - share) * 2048).round().int(), (share * 2048).round().int()


def _unfit(height: int, width: int, frames: Tensor) -> str | None:
    if max(frames[:1].numel(), 3 * height * width) >= 2**31:
        return "the kernel takes frames of less than 2**31 bytes"
    return None


_BILINEAR_RESIZE = declare(
    "bilinear_resize",
    _reference,
    native=native(augment.bilinear_resize),
    triton=triton("bilinear_resize", "bilinear_resize", unfit=_unfit),
)
