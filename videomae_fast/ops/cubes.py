"""Tubelet cubes of uint8 frames, picked by token position: what the references share."""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor


def gather_cubes(frames: Tensor, index: Tensor, tubelet_size: int, patch_size: int) -> Tensor:
    """The cubes at the given token positions; only these are read.

    Args:
        frames: uint8 [B, T, H, W, 3].
        index: int32 [B, K], positions in token order (slot, then row, then column).

    Returns:
        uint8 [B, K, tubelet, patch, patch, 3].
    """
    _, _, height, width, _ = frames.shape
    rows, columns = height // patch_size, width // patch_size
    cubes = rearrange(
        frames,
        "b (slot p0) (row p1) (column p2) c -> b slot row column p0 p1 p2 c",
        p0=tubelet_size,
        p1=patch_size,
        p2=patch_size,
    )
    position = index.long()
    clip = torch.arange(frames.shape[0], device=index.device)[:, None]
    slot = position // (rows * columns)
    row = position // columns % rows
    return cubes[clip, slot, row, position % columns]
