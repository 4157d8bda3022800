"""What a token's pixels are to be: its target from uint8 frames, and which cubes are flat."""

from __future__ import annotations

import torch
from einops import rearrange
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
    """The targets of :func:`~videomae_fast.ops.pixel_mse` themselves, in plain torch.

    Args:
        frames: uint8 [B, T, H, W, 3].
        index: int32 [B, K], token positions.
        tubelet_size: length of a token's cube, in frames.
        patch_size: side of a token's cube, in pixels.
        normalize: each cube's channels have mean 0 and standard deviation 1.
        dtype: that is computed in, and of the result.

    Returns:
        [B, K, 3 * tubelet_size * patch_size**2] in the order (p0, p1, p2, c).
    """
    return target_of(gather_cubes(frames, index, tubelet_size, patch_size), normalize, dtype)


def flat_cubes(frames: Tensor, index: Tensor, *, tubelet_size: int, patch_size: int) -> Tensor:
    """Which cubes are flat in every channel: bool [B, K]."""
    return flat_among(gather_cubes(frames, index, tubelet_size, patch_size))


def target_of(cubes: Tensor, normalize: bool, dtype: torch.dtype) -> Tensor:
    """The targets [B, K, C] of cubes [B, K, p0, p1, p2, c]."""
    pixels = rearrange(cubes, "b k p0 p1 p2 c -> b k (p0 p1 p2) c").to(dtype) / 255
    if normalize:
        mean = pixels.mean(dim=-2, keepdim=True)
        std = pixels.var(dim=-2, unbiased=True, keepdim=True).sqrt()
        pixels = (pixels - mean) / (std + 1e-6)
    return rearrange(pixels, "b k pixel c -> b k (pixel c)")


def flat_among(cubes: Tensor) -> Tensor:
    """Which of the cubes [B, K, p0, p1, p2, c] are flat in every channel: bool [B, K]."""
    # Integers, so that the decision is the same in every backend.
    pixels = rearrange(cubes, "b k p0 p1 p2 c -> b k (p0 p1 p2) c").to(torch.int64)
    n = pixels.shape[2]
    scatter = n * pixels.square().sum(-2) - pixels.sum(-2).square()  # n (n-1) var, grey levels²
    return (scatter <= n * (n - 1)).all(-1)
