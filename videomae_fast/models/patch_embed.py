"""Patch embedding of chosen tokens only."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from videomae_fast.ops import linear, patch_gather


class PatchEmbed(nn.Module):
    """Embeds the cubes of the tokens at `index`: the Conv3d of the official code as a matmul.

    The weight keeps the Conv3d's shape, [width, 3, tubelet, patch, patch], and initialisation.
    """

    def __init__(self, width: int, tubelet_size: int, patch_size: int) -> None:
        super().__init__()
        self.tubelet_size, self.patch_size = tubelet_size, patch_size
        kernel = (tubelet_size, patch_size, patch_size)
        self.proj = nn.Conv3d(3, width, kernel_size=kernel, stride=kernel)

    def forward(self, frames: Tensor, index: Tensor) -> Tensor:
        """uint8 [B, T, H, W, 3] and int32 [B, K] to [B, K, width]."""
        weight = self.proj.weight.flatten(1)
        device = frames.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None
        patches = patch_gather(
            frames,
            index,
            tubelet_size=self.tubelet_size,
            patch_size=self.patch_size,
            dtype=dtype or weight.dtype,
        )
        return linear(patches, weight, self.proj.bias)
