"""Argument checks that several ops share. They look at shapes and dtypes only: no device sync."""

from __future__ import annotations

import torch
from torch import Tensor


def check_frames(
    frames: Tensor, tubelet_size: int, patch_size: int, *, floats: bool = False
) -> tuple[int, int, int]:
    """The token grid (slots, height, width) of uint8 frames [B, T, H, W, 3].

    Args:
        frames: to look at.
        tubelet_size, patch_size: of a token's cube.
        floats: normalised floating-point frames will do as well.

    Raises:
        ValueError: wrong shape or dtype, or a size that the tubelet or patch does not divide.
    """
    if frames.ndim != 5 or frames.shape[-1] != 3:
        raise ValueError(
            f"frames must be uint8 [B, T, H, W, 3] (channels last), got {list(frames.shape)}"
        )
    if frames.dtype != torch.uint8 and not (floats and frames.is_floating_point()):
        raise ValueError(
            f"frames must be uint8 in 0..255, got {frames.dtype}; normalisation happens inside"
        )
    _, t, h, w, _ = frames.shape
    if t * h * w == 0 or t % tubelet_size or h % patch_size or w % patch_size:
        for name, size, unit in (
            ("frame count", t, tubelet_size),
            ("frame height", h, patch_size),
            ("frame width", w, patch_size),
        ):
            if size == 0 or size % unit != 0:
                raise ValueError(f"{name} {size} is not a positive multiple of {unit}")
    return t // tubelet_size, h // patch_size, w // patch_size


def check_index(index: Tensor, batch: int, name: str = "index") -> None:
    """Checks that token positions are int32 [B, K].

    Raises:
        ValueError: wrong shape or dtype.
    """
    if index.ndim != 2 or index.shape[0] != batch:
        raise ValueError(f"{name} must be [B={batch}, K], got {list(index.shape)}")
    if index.dtype != torch.int32:
        raise ValueError(f"{name} must be int32, got {index.dtype}")
