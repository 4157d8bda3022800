"""The action detector: what each person of a clip does, given boxes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from videomae_fast.masks import Grid
from videomae_fast.models.clip_padding import normalised_batch
from videomae_fast.models.config import MAEConfig
from videomae_fast.models.pixels import SLOWFAST, Pixels
from videomae_fast.models.transformer import add
from videomae_fast.models.vision_transformer import VisionTransformer
from videomae_fast.ops import roi_features
from videomae_fast.ops.checks import check_frames
from videomae_fast.ops.roi_align import RoiSpec


class ActionDetector(VisionTransformer):
    """Action detection: clips and boxes in, logits of each box out. Keys are the official ones.

    The encoder with its `norm`, the mean over time, RoIAlign, the maximum over the bins, and a
    head. Positions are interpolated within each time slot to the grid of the clips.

    A fine-tuned classifier has `fc_norm` and no `norm`; a pre-trained encoder has `norm`.

    Args:
        config: the model's shape, with the clip size and frame count that its weights were trained
            with; its decoder part is not used.
        num_classes: of the head; a box may have several.
        drop_path: stochastic depth rate of the last block.
        head_dropout: dropout before the head.
        init_scale: factor on the head's initial weights.
        activation_checkpointing: recompute blocks in the backward pass instead of storing.
        pixels: how uint8 frames are normalised.
        bins: along each side of a box.
        sampling_ratio: samples along each side of a bin; 0 takes one per begun cell, by box.
        aligned: shifts boxes by half a cell, so that a cell's value lies at its centre.

    Raises:
        ValueError: fewer than one class or bin.

    Source: VisionTransformer in modeling_finetune.py and the RoI head of the official AVA code.
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
        pixels: Pixels = SLOWFAST,
        bins: int = 7,
        sampling_ratio: int = 0,
        aligned: bool = False,
    ) -> None:
        if num_classes < 1 or bins < 1:
            raise ValueError(f"num_classes ({num_classes}) and bins ({bins}) must be at least 1")
        super().__init__(
            config,
            drop_path=drop_path,
            activation_checkpointing=activation_checkpointing,
            pixels=pixels,
            other_grids="interpolated",
        )
        self.config, self.pixels = config, pixels
        self.rois = RoiSpec(bins, 1 / config.patch_size, sampling_ratio, aligned)
        self.norm = nn.LayerNorm(config.width, eps=config.norm_eps)
        self.head_dropout = nn.Dropout(head_dropout)
        self.head = nn.Linear(config.width, num_classes)
        self.apply(_initialise)
        with torch.no_grad():
            self.head.weight.mul_(init_scale)
            self.head.bias.mul_(init_scale)

    def batch(self, clips: Sequence[Tensor]) -> Tensor:
        """Clips uint8 [T, H, W, 3] of any sizes to one normalised, padded batch for `forward`.

        Raises:
            ValueError: as :func:`~videomae_fast.models.clip_padding.normalised_batch`.
        """
        return normalised_batch(clips, self.config.patch_size, self.pixels)

    def features(
        self,
        frames: Tensor,
        boxes: Sequence[Tensor] | Tensor,
        clip_seeds: Tensor | None = None,
        *,
        clip: Tensor | None = None,
    ) -> Tensor:
        """Features of all boxes, clip by clip, [N, width].

        Args:
            frames: [B, T, H, W, 3]: uint8, or floating point and normalised (:meth:`batch`).
            boxes: for each clip float [n, 4]: x1, y1, x2, y2 in pixels of the batch. With `clip`
                those of all clips, float [N, 4].
            clip_seeds: int64 [B], what drop path is drawn from; None: torch's generator.
            clip: int64 [N], the clip of each box, where `boxes` are not by clip.

        Raises:
            ValueError: wrong shapes or dtypes, or boxes that can't be.
        """
        if clip is None:
            boxes, clip = _joined(boxes, frames.shape[0], frames.device)
        assert isinstance(boxes, Tensor)
        config = self.config
        size = check_frames(frames, config.tubelet_size, config.patch_size, floats=True)
        x = self.norm(add(*self.blocks(*self.embed(frames, None, Grid(*size)), seeds=clip_seeds)))
        return roi_features(x, boxes, clip, grid=size, spec=self.rois)

    def forward(
        self,
        frames: Tensor,
        boxes: Sequence[Tensor] | Tensor,
        clip_seeds: Tensor | None = None,
        *,
        clip: Tensor | None = None,
    ) -> Tensor:
        """As :meth:`features`, to logits [N, num_classes]; one sigmoid for each class."""
        features = self.features(frames, boxes, clip_seeds, clip=clip)
        out: Tensor = self.head(self.head_dropout(features))
        return out

    def no_weight_decay(self) -> set[str]:
        """Names of parameters that get no weight decay, besides 1-D ones and biases."""
        return {"pos_embed"}


def _joined(
    boxes: Sequence[Tensor] | Tensor, clips: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Boxes by clip to all of them, and the clip of each."""
    if len(boxes) != clips:
        raise ValueError(f"boxes of {len(boxes)} clips for {clips} clips")
    for k, each in enumerate(boxes):
        if each.ndim != 2 or each.shape[1] != 4:
            raise ValueError(f"boxes of clip {k} must be [n, 4], got {list(each.shape)}")
    clip = [torch.full((len(each),), k, device=device) for k, each in enumerate(boxes)]
    return torch.cat(list(boxes)), torch.cat(clip)


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
