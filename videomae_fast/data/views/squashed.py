"""Whole frames at another size, whatever their aspect."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from videomae_fast.ops import resized_view


def squashed(
    frames: Tensor, size: tuple[int, int], mean: Sequence[float], std: Sequence[float]
) -> Tensor:
    """Frames normalised and resized bilinearly, without antialiasing and not rounded.

    Args:
        frames: uint8 [T, H, W, 3].
        size: (height, width) in pixels.
        mean, std: per colour channel, of values in 0..1.

    Returns:
        fp32 [T, height, width, 3].

    Raises:
        ValueError: frames of a wrong shape or dtype.

    Source: extract_tad_feature.py of the official V2 code, which normalises nothing.
    """
    return resized_view(frames, (0, 0, *frames.shape[1:3]), size, mean=mean, std=std)
