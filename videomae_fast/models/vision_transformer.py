"""What the pre-training encoder and the classifier share: embedding, positions, blocks."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from videomae_fast.masks import Grid
from videomae_fast.models.config import MAEConfig
from videomae_fast.models.patch_embed import PatchEmbed
from videomae_fast.models.pixels import IMAGENET, Pixels
from videomae_fast.models.positions import (
    OtherGrids,
    SinusoidPositions,
    interpolate_table,
    learned_positions,
)
from videomae_fast.models.transformer import Blocks, Branch


class VisionTransformer(nn.Module):
    """Embeds chosen tokens of clips, adds their positions, and has a stack of blocks."""

    def __init__(
        self,
        config: MAEConfig,
        *,
        drop_path: float,
        activation_checkpointing: bool,
        pixels: Pixels = IMAGENET,
        other_grids: OtherGrids = "interpolated",
    ) -> None:
        super().__init__()
        if other_grids not in ("interpolated", "recomputed"):
            raise ValueError(f"other_grids is {other_grids!r}: interpolated or recomputed")
        self.grid, self.other_grids = config.grid, other_grids
        self.patch_embed = PatchEmbed(config.width, config.tubelet_size, config.patch_size, pixels)
        self.pos_embed: nn.Parameter | None = None
        self.positions: SinusoidPositions | None = None
        if config.learned_positions:
            self.pos_embed = learned_positions(config.grid, config.width)
        else:
            self.positions = SinusoidPositions(config.grid, config.width, other_grids)
        self.blocks = Blocks(
            config.depth,
            config.width,
            config.heads,
            config.hidden,
            drop_path=drop_path,
            layer_scale=config.layer_scale,
            norm_eps=config.norm_eps,
            activation_checkpointing=activation_checkpointing,
        )

    def embed(self, frames: Tensor, index: Tensor | None, grid: Grid) -> tuple[Tensor, Branch]:
        """Frames [B, T, H, W, 3] and token positions int32 [B, K], None for all, to the stream.

        Returns:
            What :class:`Blocks` begin with: the positions [B, K, width], and the embedded cubes as
            what is still to be added. The first LayerNorm adds both and the bias in its pass.

        Raises:
            ValueError: the positions are learned, for another grid, and not to be interpolated.
        """
        table = self._position_table(grid)
        if index is None:
            every = torch.arange(grid.tokens, dtype=torch.int32, device=frames.device)
            # Not len(frames): that is an int, which would fix the batch in torch.export
            index = every.expand(frames.shape[0], -1)
            table = table.expand(frames.shape[0], -1, -1)
        else:
            table = table[index.long()]
        cubes = self.patch_embed(frames, index, bias=False)
        return table.to(cubes.dtype), Branch(cubes, self.patch_embed.proj.bias, None, None)

    def _position_table(self, grid: Grid) -> Tensor:
        """[tokens, width]."""
        if self.positions is not None:
            table: Tensor = self.positions(grid)
            return table
        assert self.pos_embed is not None
        if grid != self.grid and self.other_grids == "recomputed":
            raise ValueError(
                f"learned positions are for {self.grid}, the clips have {grid}: they can be "
                "interpolated, but not recomputed"
            )
        return interpolate_table(self.pos_embed[0], self.grid, grid)
