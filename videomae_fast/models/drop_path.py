"""Stochastic depth: which residual branches a clip goes without in a training step."""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor, nn

from videomae_fast.ops.mask_indices import position_keys

_STREAM: Final = 0x3C6EF372  # apart from those of the masks, which are made of the same seeds


def branch_keys(seeds: Tensor, first: int, blocks: int) -> Tensor:
    """Random 32-bit numbers for the branches of blocks: the same for a clip wherever it is.

    Args:
        seeds: int64 [B], one per clip.
        first: number of the first block among all of the model.
        blocks: how many there are.

    Returns:
        int64 [blocks, 2, B], each below 2**32.
    """
    keys = position_keys(seeds, _STREAM, 2 * (first + blocks))[:, 2 * first :]
    return keys.T.reshape(blocks, 2, seeds.shape[0])


class DropPath(nn.Module):
    """Stochastic depth: drops a residual branch for a whole clip, and scales it up otherwise."""

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.probability = probability

    def forward(self, batch: Tensor) -> Tensor | None:
        """Each clip's factor, [B] in the dtype of `batch` [B, ...]; None where nothing drops.

        Drawn from torch's generator.
        """
        if self.probability == 0.0 or not self.training:
            return None
        kept = 1.0 - self.probability
        return batch.new_empty(batch.shape[0]).bernoulli_(kept).div_(kept)

    def factors(self, keys: Tensor, dtype: torch.dtype) -> Tensor:
        """The factors that random numbers below 2**32 give, int64 to the same shape.

        Always a tensor: the rate is no part of a compiled block, which serves for all depths.
        """
        kept = 1.0 - self.probability
        return (keys >= round(self.probability * 2**32)).to(dtype) / kept

    def extra_repr(self) -> str:
        return f"probability={self.probability:.3f}"
