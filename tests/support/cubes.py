"""Cubes of pixels cut out of clips by plain slicing."""

from __future__ import annotations

import torch
from torch import Tensor

# batch, frames, height, width, tubelet, patch: the official patches, odd sizes, a token, a pixel
SHAPES = [
    (2, 4, 32, 48, 2, 16),
    (1, 2, 14, 28, 2, 14),
    (1, 2, 14, 14, 2, 14),
    (3, 3, 10, 15, 3, 5),
    (2, 4, 6, 4, 1, 2),
    (2, 2, 3, 2, 1, 1),
]


def random_index(batch: int, tokens: int, k: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    index = torch.randint(tokens, (batch, k), generator=generator, dtype=torch.int32)
    index[:, -1] = tokens - 1
    return index


def cubes_by_hand(frames: Tensor, index: Tensor, tubelet: int, patch: int) -> Tensor:
    """uint8 cubes [B, K, p0, p1, p2, c] by plain slicing."""
    _, _, height, width, _ = frames.shape
    rows, columns = height // patch, width // patch
    picked = []
    for b in range(len(frames)):
        for n in index[b].tolist():
            t, y, x = n // (rows * columns), n // columns % rows, n % columns
            picked.append(
                frames[
                    b,
                    t * tubelet : (t + 1) * tubelet,
                    y * patch : (y + 1) * patch,
                    x * patch : (x + 1) * patch,
                ]
            )
    return torch.stack(picked).reshape(*index.shape, tubelet, patch, patch, 3)
