"""What a token's pixels are to be: its target from uint8 frames, and which cubes are flat."""

from __future__ import annotations

import torch
from torch import Tensor

from videomae_fast.ops.cubes import gather_cubes

# A channel of a cube whose unbiased standard deviation is at most one grey level counts as flat:
# its target would be noise, amplified to unit variance.
FLAT_STD = 1.0 / 255.0


def pixel_target(
    frames: Tensor,
    index: Tensor,
    *,
    tubelet_size: int = 2,
    patch_size: int = 16,
    normalize: bool = True,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """The targets themselves, [B, K, 3 * tubelet_size * patch_size**2] in order (p0, p1, p2, c)."""
    cubes = gather_cubes(frames, index, tubelet_size, patch_size)
    pixels = cubes.flatten(2, 4).to(dtype) / 255  # [B, K, pixels, c]
    if normalize:
        mean = pixels.mean(dim=-2, keepdim=True)
        std = pixels.var(dim=-2, unbiased=True, keepdim=True).sqrt()
        pixels = (pixels - mean) / (std + 1e-6)
    return pixels.flatten(2)


def flat_cubes(frames: Tensor, index: Tensor, *, tubelet_size: int, patch_size: int) -> Tensor:
    """Which cubes are flat in every channel: bool [B, K]."""
    cubes = gather_cubes(frames, index, tubelet_size, patch_size).flatten(2, 4)
    # Integers, so that the decision is the same in every backend.
    n = cubes.shape[2]
    pixels = cubes.to(torch.int64)
    scatter = n * pixels.square().sum(-2) - pixels.sum(-2).square()  # n (n-1) var, grey levels²
    return (scatter <= n * (n - 1)).all(-1)
