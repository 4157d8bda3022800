"""Patch embedding of chosen tokens only."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from videomae_fast.models.pixels import IMAGENET, Pixels
from videomae_fast.ops import linear, patch_gather


class PatchEmbed(nn.Module):
    """Embeds the cubes of the tokens at `index`: the Conv3d of the official code as a matmul.

    The weight keeps the Conv3d's shape, [width, 3, tubelet, patch, patch], and initialisation.
    """

    def __init__(
        self, width: int, tubelet_size: int, patch_size: int, pixels: Pixels = IMAGENET
    ) -> None:
        super().__init__()
        self.tubelet_size, self.patch_size, self.pixels = tubelet_size, patch_size, pixels
        kernel = (tubelet_size, patch_size, patch_size)
        self.proj = nn.Conv3d(3, width, kernel_size=kernel, stride=kernel)

    def forward(self, frames: Tensor, index: Tensor, *, bias: bool = True) -> Tensor:
        """Frames [B, T, H, W, 3] and int32 [B, K] to [B, K, width].

        uint8 frames are normalised as `pixels` says; floating-point ones are taken as they are, and
        get a gradient. Without `bias` what follows adds it.
        """
        values = self._values(frames, index)
        return linear(values, self.proj.weight.flatten(1), self.proj.bias if bias else None)

    def _values(self, frames: Tensor, index: Tensor) -> Tensor:
        """[B, K, values of a cube], in the dtype of the matmul."""
        device = frames.device.type
        autocast = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None
        dtype = autocast or self.proj.weight.dtype
        if frames.is_floating_point():
            return self._patches(frames, index).to(dtype)
        return patch_gather(
            frames,
            index,
            tubelet_size=self.tubelet_size,
            patch_size=self.patch_size,
            mean=self.pixels.mean,
            std=self.pixels.std,
            dtype=dtype,
        )

    def _patches(self, frames: Tensor, index: Tensor) -> Tensor:
        """[B, K, 3 * tubelet * patch**2] in the order (c, p0, p1, p2) of the weight."""
        b, t, h, w, _ = frames.shape
        tubelet, patch = self.tubelet_size, self.patch_size
        cubes = frames.view(b, t // tubelet, tubelet, h // patch, patch, w // patch, patch, 3)
        patches = cubes.permute(0, 1, 3, 5, 7, 2, 4, 6).flatten(4).flatten(1, 3)
        where = index.long()[..., None].expand(-1, -1, patches.shape[2])
        return patches.gather(1, where)
