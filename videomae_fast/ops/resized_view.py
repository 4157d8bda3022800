"""A training view: normalised, cropped, resized without antialiasing, turned around or not."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from videomae_fast.ops._declare import declare, native
from videomae_fast.ops._native import augment
from videomae_fast.ops.patch_gather import IMAGENET_MEAN, IMAGENET_STD


def resized_view(
    frames: Tensor,
    crop: tuple[int, int, int, int],
    size: tuple[int, int],
    *,
    flip: bool = False,
    mean: Sequence[float] = IMAGENET_MEAN,
    std: Sequence[float] = IMAGENET_STD,
    impl: str = "auto",
) -> Tensor:
    """The crop of a clip, bilinearly resized **after** the normalisation, in fp32.

    Args:
        frames: uint8 [T, H, W, 3].
        crop: (top, left, height, width) in pixels, inside the frame.
        size: (height, width) of the view.
        flip: from left to right.
        mean: per colour channel, of values in 0..1.
        std: likewise.
        impl: "auto", "native" (CPU) or "reference"; they differ by roundings of fp32.

    Returns:
        fp32 [T, height, width, 3].

    Raises:
        ValueError: frames of a wrong shape or dtype, or a crop outside of them.
        BackendUnavailableError: `impl` can't run here.

    Source: random_resized_crop in dataset/video_transforms.py of the official V2 code.
    """
    if frames.ndim != 4 or frames.shape[-1] != 3 or frames.dtype != torch.uint8:
        raise ValueError(
            f"frames must be uint8 [T, H, W, 3], got {frames.dtype} {list(frames.shape)}"
        )
    top, left, height, width = crop
    if (
        min(top, left) < 0
        or min(height, width) < 1
        or top + height > frames.shape[1]
        or left + width > frames.shape[2]
    ):
        raise ValueError(f"crop {crop} does not lie in frames of {tuple(frames.shape[1:3])}")
    out: Tensor = _RESIZED_VIEW(impl, frames, list(crop), *size, flip, list(mean), list(std))
    return out


def resized_view_reference(
    frames: Tensor,
    crop: Sequence[int],
    height: int,
    width: int,
    flip: bool,
    mean: Sequence[float],
    std: Sequence[float],
) -> Tensor:
    """Plain torch; the arguments of the registered op."""
    top, left, rows, columns = crop
    offset = torch.tensor(list(mean), dtype=torch.float32, device=frames.device)
    scale = torch.tensor(list(std), dtype=torch.float32, device=frames.device)
    box = frames[:, top : top + rows, left : left + columns].float()
    values = (box / 255 - offset) / scale
    planes = F.interpolate(
        values.permute(0, 3, 1, 2), (height, width), mode="bilinear", align_corners=False
    )
    view = rearrange(planes, "t c h w -> t h w c")
    return (view.flip(2) if flip else view).contiguous()


_RESIZED_VIEW = declare("resized_view", resized_view_reference, native=native(augment.resized_view))
