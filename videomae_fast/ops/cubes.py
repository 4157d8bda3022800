"""Tubelet cubes of uint8 frames, picked by token position: what the references share."""

from __future__ import annotations

import torch
from torch import Tensor


def gather_cubes(frames: Tensor, index: Tensor, tubelet_size: int, patch_size: int) -> Tensor:
    """The cubes at the given token positions; only these are read.

    Args:
        frames: uint8 [B, T, H, W, 3].
        index: int32 [B, K], positions in token order (slot, then row, then column).

    Returns:
        uint8 [B, K, tubelet, patch, patch, 3].
    """
    b, t, h, w, c = frames.shape
    p0, p = tubelet_size, patch_size
    rows, columns = h // p, w // p
    cubes = frames.reshape(b, t // p0, p0, rows, p, columns, p, c)
    cubes = cubes.permute(0, 1, 3, 5, 2, 4, 6, 7)  # [B, slot, row, column, p0, p1, p2, c]
    position = index.long()
    clip = torch.arange(b, device=index.device)[:, None]
    slot = position // (rows * columns)
    row = position // columns % rows
    return cubes[clip, slot, row, position % columns]
