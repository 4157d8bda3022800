"""The video classifier: the encoder over all tokens, mean-pooled."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from videomae_fast.masks import Grid
from videomae_fast.models.config import MAEConfig
from videomae_fast.models.pixels import IMAGENET, Pixels
from videomae_fast.models.positions import OtherGrids
from videomae_fast.models.transformer import add
from videomae_fast.models.vision_transformer import VisionTransformer
from videomae_fast.ops.checks import check_frames


class VideoClassifier(VisionTransformer):
    """Action classification: clips in, logits out. State-dict keys are the official ones.

    Clips are uint8, normalised inside as `pixels` says, or floating point and normalised already.

    Args:
        config: the model's shape, with the clip size and frame count that its weights were trained
            with; its decoder part is not used. Clips of other sizes work too.
        num_classes: of the head.
        drop_path: stochastic depth rate of the last block.
        head_dropout: dropout before the head.
        init_scale: factor on the head's initial weights.
        activation_checkpointing: recompute blocks in the backward pass instead of storing.
        pixels: how uint8 frames are normalised.
        other_grids: positions for clips of another size or frame count than the config's:
            "interpolated", or "recomputed" as in the official code.

    Raises:
        ValueError: fewer than one class, or an unknown word.

    Source: VisionTransformer in models/modeling_finetune.py of the official V2 code.
    """

    def __init__(
        self,
        config: MAEConfig,
        num_classes: int,
        *,
        drop_path: float = 0.0,
        head_dropout: float = 0.0,
        init_scale: float = 0.001,
        activation_checkpointing: bool = False,
        pixels: Pixels = IMAGENET,
        other_grids: OtherGrids = "interpolated",
    ) -> None:
        if num_classes < 1:
            raise ValueError(f"num_classes must be at least 1, got {num_classes}")
        super().__init__(
            config,
            drop_path=drop_path,
            activation_checkpointing=activation_checkpointing,
            pixels=pixels,
            other_grids=other_grids,
        )
        self.config = config
        self.fc_norm = nn.LayerNorm(config.width, eps=config.final_norm_eps)
        self.head_dropout = nn.Dropout(head_dropout)
        self.head = nn.Linear(config.width, num_classes)
        self.apply(_initialise)
        with torch.no_grad():
            self.head.weight.mul_(init_scale)
            self.head.bias.mul_(init_scale)

    def features(self, frames: Tensor, clip_seeds: Tensor | None = None) -> Tensor:
        """Frames [B, T, H, W, 3] to mean-pooled, normalised features [B, width].

        clip_seeds: int64 [B], what drop path is drawn from; None: torch's generator.

        Raises:
            ValueError: frames of a wrong shape or dtype.
        """
        config = self.config
        grid = Grid(*check_frames(frames, config.tubelet_size, config.patch_size, floats=True))
        x = add(*self.blocks(*self.embed(frames, None, grid), seeds=clip_seeds))
        out: Tensor = self.fc_norm(x.mean(1))
        return out

    def forward(self, frames: Tensor, clip_seeds: Tensor | None = None) -> Tensor:
        """Frames [B, T, H, W, 3] to logits [B, num_classes]; `clip_seeds`: see `features`."""
        out: Tensor = self.head(self.head_dropout(self.features(frames, clip_seeds)))
        return out

    def no_weight_decay(self) -> set[str]:
        """Names of parameters that get no weight decay, besides 1-D ones and biases."""
        return {"pos_embed"}


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
