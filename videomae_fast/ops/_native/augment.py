"""The native ops on frames: RandAugment, jitter of colours, resizes without antialiasing."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from videomae_fast.ops._native.calls import call


def rand_augment(frames: Tensor, operations: Tensor) -> Tensor:
    """Frames after the operations, the same for any thread count.

    Args:
        frames: uint8 [T, H, W, 3].
        operations: fp64 [N, 12], the rows of ops/augment_plan.py, whose results are read whole.

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


def mix_clips(clips: Tensor, own: Tensor, boxes: Tensor) -> Tensor:
    """fp32 [B, T, H, W, 3] mixed with the clips in reverse: shares fp64 [B], boxes int64 [B, 4]."""
    clips, own, boxes = clips.contiguous(), own.contiguous(), boxes.contiguous()
    out = torch.empty_like(clips)
    call("vmf_mix_clips", "ppppiiii", clips, own, boxes, out, *clips.shape[:4])
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
    out = torch.empty((len(frames), height, width, 3), dtype=torch.float32)
    call(
        "vmf_resized_view", "pppiiiiiiiiii",
        frames, _levels(mean, std), out, *frames.shape[:3], *crop, height, width, int(flip),
    )  # fmt: skip
    return out


def augmented_view(
    frames: Tensor,
    operations: Tensor,
    crop: Sequence[int],
    flip: bool,
    mean: Sequence[float],
    std: Sequence[float],
    out: Tensor,
) -> None:
    """As :func:`resized_view` of the frames after some operations, into `out`.

    Args:
        operations: fp64 [N, 12], the rows of ops/augment_plan.py for this crop.
        out: fp32 [T, height, width, 3], contiguous.

    Raises:
        ValueError: an operation that the library does not know.
    """
    frames, operations = frames.contiguous(), operations.contiguous()
    call(
        "vmf_augmented_view", "ppppiiiiiiiiiii",
        frames, operations, _levels(mean, std), out, len(operations), *frames.shape[:3], *crop,
        *out.shape[1:3], int(flip),
    )  # fmt: skip


def _levels(mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Every value that a pixel can have, fp32 [3, 256], with the reference's own arithmetic."""
    levels = torch.arange(256, dtype=torch.float32) / 255
    offset, scale = torch.tensor([list(mean), list(std)], dtype=torch.float32)
    table: Tensor = (levels - offset[:, None]) / scale[:, None]
    return table.contiguous()
