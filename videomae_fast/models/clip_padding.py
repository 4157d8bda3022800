"""Clips of several sizes as one batch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from videomae_fast.models.pixels import Pixels


def normalised_batch(clips: Sequence[Tensor], multiple: int, pixels: Pixels) -> Tensor:
    """Clips, normalised, with zeros to their right and below: the size of all is the greatest.

    Args:
        clips: uint8 [T, H, W, 3] each, of one T and on one device.
        multiple: of which the batch's height and width are.
        pixels: how they are normalised; the zeros come after that, so they are the mean colour.

    Returns:
        fp32 [B, T, H, W, 3].

    Raises:
        ValueError: no clip, wrong shapes or dtypes, or numbers of frames that differ.
    """
    if not clips:
        raise ValueError("a batch needs at least one clip")
    for k, clip in enumerate(clips):
        if clip.ndim != 4 or clip.shape[-1] != 3 or clip.dtype != torch.uint8:
            raise ValueError(
                f"clip {k} must be uint8 [T, H, W, 3], got {clip.dtype} {list(clip.shape)}"
            )
        if len(clip) != len(clips[0]) or not clip.numel():
            raise ValueError(
                f"clip {k} is {list(clip.shape)}, where clip 0 is {list(clips[0].shape)}: all "
                "need as many frames, and at least a pixel"
            )
    height, width = (
        -(-max(clip.shape[side] for clip in clips) // multiple) * multiple for side in (1, 2)
    )
    device = clips[0].device
    mean, std = torch.tensor([pixels.mean, pixels.std], device=device)
    out = torch.zeros((len(clips), len(clips[0]), height, width, 3), device=device)
    for to, clip in zip(out, clips, strict=True):
        to[:, : clip.shape[1], : clip.shape[2]] = (clip.float() / 255 - mean) / std
    return out
