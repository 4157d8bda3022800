"""The native ops on frames: RandAugment, jitter of colours, resizes without antialiasing.

An operation that the library does not know is a ValueError.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from videomae_fast.arguments import Arguments, contiguous
from videomae_fast.ops._native.calls import call
from videomae_fast.ops._native.pixels import levels


def rand_augment(frames: Tensor, operations: Tensor) -> Tensor:
    """uint8 [T, H, W, 3] after operations whose results are read whole, rows of
    ops/augment_plan.py, fp64 [N, 12]."""
    frames, operations = contiguous(frames, operations)
    out, spare = torch.empty_like(frames), torch.empty_like(frames)
    tensors, sizes = (frames, operations, out, spare), (len(operations), *frames.shape[:3])
    call("vmf_rand_augment", "ppppiiii", *tensors, *sizes)
    return out


def mix_clips(args: Arguments) -> Tensor:
    """Of fp32."""
    clips, own, boxes = contiguous(args.clips, args.own, args.boxes)
    out = torch.empty_like(clips)
    call("vmf_mix_clips", "ppppiiii", clips, own, boxes, out, *clips.shape[:4])
    return out


def hsv_jitter(args: Arguments) -> Tensor:
    frames, shifts = contiguous(args.frames, args.shifts)
    out = torch.empty_like(frames)
    pixels = frames[0].numel() // 3 if len(frames) else 0
    call("vmf_hsv_jitter", "pppii", frames, shifts, out, len(frames), pixels)
    return out


def bilinear_resize(args: Arguments) -> Tensor:
    frames, size = args.frames.contiguous(), (args.height, args.width)
    out = torch.empty((len(frames), *size, 3), dtype=torch.uint8)
    call("vmf_bilinear_resize", "ppiiiii", frames, out, *frames.shape[:3], *size)
    return out


def resized_view(args: Arguments) -> Tensor:
    frames, size = args.frames.contiguous(), (args.height, args.width)
    out = torch.empty((len(frames), *size, 3), dtype=torch.float32)
    table = levels(args.mean, args.std)
    sizes = (*frames.shape[:3], *args.crop, *size, int(args.flip))
    call("vmf_resized_view", "pppiiiiiiiiii", frames, table, out, *sizes)
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
    """
    frames, operations = contiguous(frames, operations)
    table = levels(mean, std)
    sizes = (len(operations), *frames.shape[:3], *crop, *out.shape[1:3], int(flip))
    call("vmf_augmented_view", "ppppiiiiiiiiiii", frames, operations, table, out, *sizes)
