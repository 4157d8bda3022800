"""The native ops on frames: RandAugment, jitter of colours, resizes without antialiasing."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from videomae_fast.ops._native.calls import call

KINDS = (
    "auto_contrast", "equalize", "invert", "posterize", "solarize", "solarize_add", "color",
    "contrast", "brightness", "sharpness",
)  # fmt: skip
"""Of operations, in the order of ``Kind`` in csrc/rand_augment.cpp."""
AFFINE = len(KINDS)


def rand_augment(frames: Tensor, operations: Tensor) -> Tensor:
    """Frames after the operations, the same for any thread count.

    Args:
        frames: uint8 [T, H, W, 3].
        operations: fp64 [N, 8], a row for each: kind, argument, matrix of an affine one.

    Raises:
        ValueError: an operation that the library does not know.
    """
    frames, operations = frames.contiguous(), operations.contiguous()
    out, spare = torch.empty_like(frames), torch.empty_like(frames)
    count, height, width, _ = frames.shape
    call(
        "vmf_rand_augment", "ppppiiii",
        frames, operations, out, spare, len(operations), count, height, width,
    )  # fmt: skip
    return out


def hsv_jitter(frames: Tensor, shifts: Tensor) -> Tensor:
    """uint8 [B, T, H, W, 3] with colours moved by int64 [B, 3], OpenCV's bytes."""
    frames, shifts = frames.contiguous(), shifts.contiguous()
    out = torch.empty_like(frames)
    pixels = frames[0].numel() // 3 if len(frames) else 0
    call("vmf_hsv_jitter", "pppii", frames, shifts, out, len(frames), pixels)
    return out


def bilinear_resize(frames: Tensor, height: int, width: int) -> Tensor:
    """uint8 [T, H, W, 3] to [T, height, width, 3], OpenCV's bytes."""
    frames = frames.contiguous()
    out = frames.new_empty((len(frames), height, width, 3))
    call("vmf_bilinear_resize", "ppiiiii", frames, out, *frames.shape[:3], height, width)
    return out


def resized_view(
    frames: Tensor,
    crop: Sequence[int],
    height: int,
    width: int,
    flip: bool,
    mean: Sequence[float],
    std: Sequence[float],
) -> Tensor:
    """uint8 [T, H, W, 3] to fp32 [T, height, width, 3]: cropped, normalised, resized."""
    frames = frames.contiguous()
    # Every value that a pixel can have, with the reference's own arithmetic.
    levels = torch.arange(256, dtype=torch.float32) / 255
    offset, scale = torch.tensor([list(mean), list(std)], dtype=torch.float32)
    table = ((levels - offset[:, None]) / scale[:, None]).contiguous()
    out = torch.empty((len(frames), height, width, 3), dtype=torch.float32)
    call(
        "vmf_resized_view", "pppiiiiiiiiii",
        frames, table, out, *frames.shape[:3], *crop, height, width, int(flip),
    )  # fmt: skip
    return out
