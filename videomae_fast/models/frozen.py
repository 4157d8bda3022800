"""Vectors of frozen models: of any block, per clip, per time slot or per token."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from typing import Literal

import torch
from torch import Tensor, nn

from videomae_fast.masks import Grid
from videomae_fast.models.classifier import VideoClassifier
from videomae_fast.models.masked_autoencoder import Encoder
from videomae_fast.models.packed_weights import pack_weights
from videomae_fast.models.transformer import add, add_norm
from videomae_fast.ops.checks import check_frames

Pooling = Literal["clip", "slots", "tokens"]


@dataclass(frozen=True)
class FrozenFeatures:
    """What is taken from a model.

    Attributes:
        model: a classifier, or the encoder of pre-training.
        pooling: "clip" means over all tokens, [B, width]; "slots" means over the tokens of each
            time slot, [B, t, width]; "tokens" takes them all, [B, t, h, w, width].
        layer: number of blocks that are run, 1 to the model's depth; None: all.
        final_norm: apply the model's last LayerNorm, which was trained on the last block's output.
            A classifier's ``fc_norm`` comes after the mean, as in the official code, pre-training's
            ``encoder.norm`` before it, on each token. Earlier layers have none.

    Raises:
        ValueError: a layer that the model does not have, or an unknown word.

    Source: forward_features in models/modeling_finetune.py, and PretrainVisionTransformerEncoder
        in models/modeling_pretrain.py of the official V2 code.
    """

    model: VideoClassifier | Encoder
    pooling: Pooling = "clip"
    layer: int | None = None
    final_norm: bool = True

    def __post_init__(self) -> None:
        if self.pooling not in ("clip", "slots", "tokens"):
            raise ValueError(f"pooling is {self.pooling!r}: clip, slots or tokens")
        if self.layer is not None and not 1 <= self.layer <= self.depth:
            raise ValueError(f"layer {self.layer}: the model has layers 1 to {self.depth}")

    @property
    def depth(self) -> int:
        """Blocks of the model."""
        return len(self.model.blocks)

    @property
    def norm(self) -> nn.LayerNorm | None:
        """The LayerNorm that is applied, or None."""
        if not self.final_norm or (self.layer or self.depth) < self.depth:
            return None
        return self.model.fc_norm if isinstance(self.model, VideoClassifier) else self.model.norm

    @property
    def norm_applied(self) -> str:
        """Which norm that is: "fc_norm", "encoder.norm" or "none"."""
        if self.norm is None:
            return "none"
        return "fc_norm" if isinstance(self.model, VideoClassifier) else "encoder.norm"

    def shape(self, frames: int, size: tuple[int, int]) -> tuple[int, ...]:
        """Of one clip's features.

        Args:
            frames: of the clip.
            size: (height, width) in pixels.

        Raises:
            ValueError: no multiple of the model's tubelet or patch size.
        """
        grid = self._grid(frames, size)
        t, h, w = grid.slots, grid.height, grid.width
        width = self.model.patch_embed.proj.out_channels
        return {"clip": (width,), "slots": (t, width), "tokens": (t, h, w, width)}[self.pooling]

    def pack(self, frames: int, size: tuple[int, int], batch: int = 1) -> str | None:
        """Lays the model's weights out for a CPU's matmuls, in place; it serves for this alone.

        Args:
            frames: of the usual clip.
            size: its (height, width) in pixels.
            batch: clips of the usual forward pass.

        Returns:
            As :func:`videomae_fast.models.packed_weights.pack_weights`.

        Raises:
            ValueError: no multiple of the model's tubelet or patch size.
        """
        return pack_weights(self.model, batch * self._grid(frames, size).tokens)

    def _grid(self, frames: int, size: tuple[int, int]) -> Grid:
        embed = self.model.patch_embed
        return Grid.of(frames, size, embed.tubelet_size, embed.patch_size)

    @torch.no_grad()
    def __call__(self, frames: Tensor) -> Tensor:
        """
        Args:
            frames: [B, T, H, W, 3], uint8, or floating point and normalised.

        Returns:
            fp32 features, in the shape that the pooling says.

        Raises:
            ValueError: frames of a wrong shape or dtype.
        """
        embed = self.model.patch_embed
        grid = Grid(*check_frames(frames, embed.tubelet_size, embed.patch_size, floats=True))
        x, branch = self.model.embed(frames, None, grid)
        for block in islice(self.model.blocks, self.layer or self.depth):
            x, branch = block(x, branch)
        norm = self.norm
        if norm is not None and not isinstance(self.model, VideoClassifier):
            x, norm = add_norm(x, branch, norm)[0], None
        else:
            x = add(x, branch)
        x = x.reshape(x.shape[0], grid.slots, grid.height, grid.width, -1)
        if self.pooling != "tokens":
            x = x.flatten(1, 3).mean(1) if self.pooling == "clip" else x.flatten(2, 3).mean(2)
        if norm is not None:
            x = norm(x)
        features: Tensor = x.float()
        return features
