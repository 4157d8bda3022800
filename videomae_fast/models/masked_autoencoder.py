"""The masked autoencoder of VideoMAE and VideoMAE V2."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TypedDict

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from videomae_fast.masks import Grid, Masks
from videomae_fast.models.config import MAEConfig
from videomae_fast.models.linear import Linear
from videomae_fast.models.positions import OtherGrids, SinusoidPositions
from videomae_fast.models.transformer import Blocks, SharedTokens, add, add_norm
from videomae_fast.models.vision_transformer import VisionTransformer
from videomae_fast.ops import (
    decoder_assembly,
    gradient_root,
    pixel_mse,
    pixel_mse_with_gradient,
    start_backward,
)
from videomae_fast.ops.checks import check_frames


class _LossSettings(TypedDict):
    tubelet_size: int
    patch_size: int
    normalize: bool
    ignore_flat: bool


@dataclass
class MAEOutput:
    """What a forward pass gives.

    Attributes:
        loss: scalar fp32, ``loss_sum / loss_weight`` (0 where no token has weight).
        loss_sum: sum of weight · mean squared error over the tokens in the loss.
        loss_weight: sum of the weights. Micro-batches and ranks add up loss_sum and loss_weight.
        prediction: [B, P, 3 · tubelet · patch²] in the order (p0, p1, p2, c), on request.
        index: int32 [B, P], token positions of the predictions, on request.
        root: where :meth:`backward` starts, if asked for with `gradient_scale`; the losses have no
            graph then.
    """

    loss: Tensor
    loss_sum: Tensor
    loss_weight: Tensor
    prediction: Tensor | None = None
    index: Tensor | None = None
    root: Tensor | None = None

    def backward(self) -> None:
        """Backward from the gradient that the forward pass computed along with the loss.

        Raises:
            RuntimeError: the model was called without `gradient_scale`.
        """
        if self.root is None:
            raise RuntimeError(
                "call the model with gradient_scale to have the gradient computed with the loss, "
                "or use loss.backward()"
            )
        start_backward(self.root)


# What wraps a module (FSDP's hooks for backward, say) looks for tensors in the nodes of trees only.
pytree.register_pytree_node(
    MAEOutput,
    lambda output: ([getattr(output, field.name) for field in fields(MAEOutput)], None),
    lambda values, _: MAEOutput(*values),
    serialized_type_name="videomae_fast.MAEOutput",
)


class Encoder(VisionTransformer):
    """The ViT over visible tokens only."""

    def __init__(
        self,
        config: MAEConfig,
        *,
        drop_path: float,
        activation_checkpointing: bool,
        other_grids: OtherGrids = "interpolated",
    ) -> None:
        super().__init__(
            config,
            drop_path=drop_path,
            activation_checkpointing=activation_checkpointing,
            other_grids=other_grids,
        )
        self.norm: nn.LayerNorm | None = None
        if config.encoder_norm:
            self.norm = nn.LayerNorm(config.width, eps=config.norm_eps)

    def forward(
        self, frames: Tensor, index: Tensor, grid: Grid, seeds: Tensor | None = None
    ) -> Tensor:
        """uint8 [B, T, H, W, 3] and the visible tokens' positions to [B, V, width].

        seeds: int64 [B], what drop path is drawn from; None: torch's generator.
        """
        stream, branch = self.blocks(*self.embed(frames, index, grid), seeds=seeds)
        if self.norm is None:
            return add(stream, branch)
        return add_norm(stream, branch, self.norm)[0]


class Decoder(nn.Module):
    """The narrow ViT over visible and mask tokens, and the head to pixels."""

    def __init__(
        self, config: MAEConfig, *, drop_path: float, activation_checkpointing: bool
    ) -> None:
        super().__init__()
        self.blocks = Blocks(
            config.decoder_depth,
            config.decoder_width,
            config.decoder_heads,
            config.decoder_hidden,
            drop_path=drop_path,
            layer_scale=config.layer_scale,
            norm_eps=config.norm_eps,
            activation_checkpointing=activation_checkpointing,
            number=config.depth,
        )
        self.norm = nn.LayerNorm(config.decoder_width, eps=config.final_norm_eps)
        self.head = Linear(config.decoder_width, config.patch_values)

    def forward(
        self,
        x: Tensor,
        queries: Tensor,
        key_count: Tensor | None,
        shared: SharedTokens,
        seeds: Tensor | None = None,
    ) -> Tensor:
        """[B, L, decoder width] and the tokens in the loss (int32 [B, P]) to their pixels.

        The last block and the head work for these tokens only; the others are its keys and values.
        The first block makes queries, keys and values of the mask tokens, which all clips share,
        once per position.
        """
        stream, branch = self.blocks(
            x, queries=queries, key_count=key_count, shared=shared, seeds=seeds
        )
        normal, _ = add_norm(stream, branch, self.norm)
        out: Tensor = self.head(normal)
        return out


class MaskedAutoencoder(nn.Module):
    """VideoMAE pre-training: uint8 clips and masks in, loss out. State-dict keys are the official.

    Args:
        config: the model's shape. Clips of other sizes work too; see `other_grids`.
        drop_path: stochastic depth rate of the last block.
        activation_checkpointing: recompute blocks in the backward pass instead of storing.
        normalize_target: per cube and colour channel, as in all recipes; False predicts pixels.
        ignore_flat_cubes: weight 0 for cubes without texture (blank frames, letterbox bars),
            whose normalised target is amplified noise. Off in the official code.
        other_grids: positions for clips of another size or frame count than the config's:
            "interpolated", or "recomputed" as in the official code.

    Source: VideoMAE V2 paper, section 3; models/modeling_pretrain.py of the official V2 code.
    """

    def __init__(
        self,
        config: MAEConfig,
        *,
        drop_path: float = 0.0,
        activation_checkpointing: bool = False,
        normalize_target: bool = True,
        ignore_flat_cubes: bool = False,
        other_grids: OtherGrids = "interpolated",
    ) -> None:
        super().__init__()
        self.config = config
        self.normalize_target = normalize_target
        self.ignore_flat_cubes = ignore_flat_cubes
        self.encoder = Encoder(
            config,
            drop_path=drop_path,
            activation_checkpointing=activation_checkpointing,
            other_grids=other_grids,
        )
        self.decoder = Decoder(
            config, drop_path=drop_path, activation_checkpointing=activation_checkpointing
        )
        # Only these two are Xavier-initialised in the official code: encoder_to_decoder keeps
        # torch's default for a Linear.
        self.encoder.apply(_initialise)
        self.decoder.apply(_initialise)
        self.encoder_to_decoder = Linear(config.width, config.decoder_width, bias=False)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, config.decoder_width))
        nn.init.trunc_normal_(self.mask_token, std=0.02, a=-0.02, b=0.02)
        self.decoder_positions = SinusoidPositions(config.grid, config.decoder_width, other_grids)

    def forward(
        self,
        frames: Tensor,
        masks: Masks,
        *,
        return_prediction: bool = False,
        gradient_scale: float | None = None,
        clip_seeds: Tensor | None = None,
    ) -> MAEOutput:
        """
        Args:
            frames: uint8 [B, T, H, W, 3], channels last; normalised inside.
            masks: of the same batch and grid, on the same device.
            return_prediction: also return the predictions and their token positions.
            gradient_scale: compute the gradient of this number times ``loss_sum`` along with the
                loss; :meth:`MAEOutput.backward` goes on from there. It saves reading predictions
                and frames again where the factor is known before, as in a training step. None: the
                losses have a graph, and ``loss.backward()`` works as ever.
            clip_seeds: int64 [B], what drop path is drawn from, so that a clip is treated alike in
                any batch and process. None: it is drawn from torch's generator.

        Raises:
            ValueError: frames of a wrong shape or dtype, or masks of another grid or batch.
        """
        tubelet, patch = self.config.tubelet_size, self.config.patch_size
        grid = Grid(*check_frames(frames, tubelet, patch))
        if masks.grid != grid or len(masks) != len(frames):
            raise ValueError(
                f"{len(masks)} masks of {masks.grid} don't fit {len(frames)} clips of {grid}"
            )
        encoded = self.encoder(frames, masks.visible, grid, clip_seeds)
        positions = self.decoder_positions(grid)
        sequence = decoder_assembly(
            self.encoder_to_decoder(encoded),
            self.mask_token,
            positions,
            masks.visible,
            masks.decoder,
        )
        mask_tokens = (self.mask_token[0] + positions).to(self.mask_token.dtype)
        visible = masks.visible.shape[1]
        key_count = None if masks.decoder_count is None else masks.decoder_count + visible
        prediction = self.decoder(
            sequence,
            masks.loss_slot + visible,
            key_count,
            SharedTokens(mask_tokens, masks.decoder),
            clip_seeds,
        )
        inputs = (prediction, frames, masks.loss_index, masks.loss_weight)
        settings: _LossSettings = {
            "tubelet_size": tubelet,
            "patch_size": patch,
            "normalize": self.normalize_target,
            "ignore_flat": self.ignore_flat_cubes,
        }
        root = None
        if gradient_scale is None:
            loss_sum, loss_weight = pixel_mse(*inputs, **settings)
        else:
            loss_sum, loss_weight, gradient = pixel_mse_with_gradient(
                *inputs, scale=gradient_scale, **settings
            )
            root = gradient_root(prediction, gradient)
        tiny = torch.finfo(loss_weight.dtype).tiny
        loss = loss_sum / loss_weight.clamp(min=tiny)
        output = MAEOutput(loss, loss_sum, loss_weight, root=root)
        if return_prediction:
            output.prediction, output.index = prediction, masks.loss_index
        return output

    def no_weight_decay(self) -> set[str]:
        """Names of parameters that get no weight decay, besides 1-D ones and biases."""
        return {"mask_token", "encoder.pos_embed"}


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
