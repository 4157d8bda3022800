"""The video classifier: the encoder over all tokens, mean-pooled."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from videomae_fast.masks import Grid
from videomae_fast.models.config import MAEConfig
from videomae_fast.models.transformer import add
from videomae_fast.models.vision_transformer import VisionTransformer
from videomae_fast.ops.checks import check_frames


class VideoClassifier(VisionTransformer):
    """Action classification: uint8 clips in, logits out. State-dict keys are the official ones.

    Args:
        config: the model's shape; its decoder part is not used. Clips of other sizes work too.
        num_classes: of the head.
        drop_path: stochastic depth rate of the last block.
        head_dropout: dropout before the head.
        init_scale: factor on the head's initial weights.
        activation_checkpointing: recompute blocks in the backward pass instead of storing.

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
    ) -> None:
        if num_classes < 1:
            raise ValueError(f"num_classes must be at least 1, got {num_classes}")
        super().__init__(
            config, drop_path=drop_path, activation_checkpointing=activation_checkpointing
        )
        self.config = config
        self.fc_norm = nn.LayerNorm(config.width, eps=config.final_norm_eps)
        self.head_dropout = nn.Dropout(head_dropout)
        self.head = nn.Linear(config.width, num_classes)
        self.apply(_initialise)
        with torch.no_grad():
            self.head.weight.mul_(init_scale)
            self.head.bias.mul_(init_scale)

    def features(self, frames: Tensor) -> Tensor:
        """uint8 [B, T, H, W, 3] to mean-pooled, normalised features [B, width].

        Raises:
            ValueError: frames of a wrong shape or dtype.
        """
        config = self.config
        grid = Grid(*check_frames(frames, config.tubelet_size, config.patch_size))
        x = add(*self.blocks(self.embed(frames, None, grid)))
        out: Tensor = self.fc_norm(x.mean(1))
        return out

    def forward(self, frames: Tensor) -> Tensor:
        """uint8 [B, T, H, W, 3] to logits [B, num_classes]."""
        out: Tensor = self.head(self.head_dropout(self.features(frames)))
        return out

    def no_weight_decay(self) -> set[str]:
        """Names of parameters that get no weight decay, besides 1-D ones and biases."""
        return {"pos_embed"}


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
