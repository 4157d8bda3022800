"""Forms of Hugging Face's VideoMAE (transformers 5), with their signatures.

Source: transformers/models/videomae/modeling_videomae.py.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.modeling_outputs import BaseModelOutput
from transformers.models.videomae.modeling_videomae import (
    VideoMAEDecoderOutput,
    VideoMAEForPreTrainingOutput,
)
from transformers.utils.generic import can_return_tuple

from videomae_fast.interop.acceleration.code import why_unknown
from videomae_fast.interop.acceleration.hugging_face_blocks import HUGGING_FACE
from videomae_fast.interop.acceleration.inputs import (
    Visible,
    chosen,
    clip_tokens,
    cubes_at,
    embed,
    own_clips,
    own_mask,
    own_masks,
    projected,
    usual_masks,
    visible_and_decoded,
    why_no_embedding,
)
from videomae_fast.interop.acceleration.plain import hooked, hooked_within, transformed
from videomae_fast.interop.acceleration.tables import WithTable
from videomae_fast.interop.acceleration.views import run, why_not_norms
from videomae_fast.masks import Masks
from videomae_fast.models.transformer import Branch, SharedTokens, add, add_norm
from videomae_fast.ops import decoder_assembly, pixel_mse, token_gather
from videomae_fast.ops.patch_gather import IMAGENET_MEAN, IMAGENET_STD


def _run(
    layers: Any, x: Tensor, queries: Tensor | None = None, shared: SharedTokens | None = None
) -> tuple[Tensor, Branch | None]:
    return run(
        layers,
        x,
        HUGGING_FACE,
        activation_checkpointing=False,
        # A layer checkpoints itself, in the way that the user chose for it
        one_by_one=any(
            getattr(layer, "gradient_checkpointing", False) and layer.training for layer in layers
        ),
        queries=queries,
        shared=shared,
    )


class LayerForm(nn.Module):
    """A VideoMAELayer that is called by itself."""

    def forward(self, hidden_states: Tensor, **kwargs: Any) -> Tensor:
        here: Any = self
        # Hooks within see the layer's own computation: output_attentions works by them
        if kwargs or transformed() or hooked_within(here) or HUGGING_FACE.why_not(here) is not None:
            out: Tensor = super().forward(hidden_states, **kwargs)
            return out
        return add(*HUGGING_FACE.view(here)(hidden_states))


class EmbeddingsForm(WithTable):
    """VideoMAEEmbeddings: embeds the visible tokens only."""

    table_name = "position_embeddings"

    def forward(self, pixel_values: Tensor, bool_masked_pos: Tensor | Visible | None) -> Tensor:
        """
        Args:
            pixel_values: [B, T, C, H, W], normalised, or uint8 frames [B, T, H, W, 3].
            bool_masked_pos: bool [B, N], True = not seen; or the visible tokens; or None, all are
                seen.

        Returns:
            [B, V or N, width].
        """
        here: Any = self
        mask = bool_masked_pos
        clips = _channels_first(pixel_values)
        if (
            transformed()
            or not embeds_as_known(here, clips)
            or not (
                mask is None
                or isinstance(mask, Visible)
                or usual_masks(clips, here.patch_embeddings.projection, mask)
            )
        ):
            own = mask if mask is None else own_mask(mask, here.position_embeddings.shape[1])
            out: Tensor = super().forward(own_clips(pixel_values, here, channels=2), own)
            return out
        index = None
        if mask is not None:
            index = mask.tokens if isinstance(mask, Visible) else chosen(~mask)[0]
        tokens = embed(here.patch_embeddings.projection, clips, index)
        table = self.table(tokens).to(tokens.dtype)
        return tokens + (table if index is None else table[index.long()])


def embeds_as_known(embeddings: Any, clips: Tensor) -> bool:
    """Whether clips of this shape are embedded by a plain Conv3d and meet a table of their size.

    Args:
        clips: floating [B, C, T, H, W], or uint8 frames [B, T, H, W, 3].
    """
    patches = embeddings.patch_embeddings
    if why_unknown(embeddings, "VideoMAEEmbeddings") is not None or hooked(patches):
        return False
    if why_unknown(patches, "VideoMAEPatchEmbeddings") is not None:
        return False
    if why_no_embedding(patches.projection) is not None:
        return False
    if patches.num_channels != patches.projection.in_channels:
        return False
    tokens = clip_tokens(clips, patches.projection, patches.image_size)
    return tokens is not None and bool(embeddings.fits(tokens))


class EncoderForm(nn.Module):
    """VideoMAEEncoder."""

    def forward(self, hidden_states: Tensor, **kwargs: Any) -> BaseModelOutput:
        here: Any = self
        if kwargs or transformed() or why_unknown(here, "VideoMAEEncoder") is not None:
            own: BaseModelOutput = super().forward(hidden_states, **kwargs)
            return own
        stream, branch = _run(here.layer, hidden_states)
        out = stream if branch is None else add(stream, branch)
        return BaseModelOutput(last_hidden_state=out)


class DecoderForm(nn.Module):
    """VideoMAEDecoder: its last layer works for the predicted tokens only.

    Its first one makes queries, keys and values of mask tokens once per position, not per clip.
    """

    def forward(
        self, hidden_states: Tensor, return_token_num: int, shared: SharedTokens | None = None
    ) -> VideoMAEDecoderOutput:
        here: Any = self
        b, n, _ = hidden_states.shape
        if (
            transformed()
            or why_unknown(here, "VideoMAEDecoder") is not None
            or why_not_norms(here.norm) is not None
            or not 0 < return_token_num <= n
        ):
            own: VideoMAEDecoderOutput = super().forward(hidden_states, return_token_num)
            return own
        last = torch.arange(n - return_token_num, n, dtype=torch.int32, device=hidden_states.device)
        queries = last.expand(b, -1).contiguous()
        stream, branch = _run(here.decoder_layers, hidden_states, queries, shared)
        logits = projected(here.head, add_norm(stream, branch, here.norm)[0])
        return VideoMAEDecoderOutput(logits=logits)


class PretrainingForm(WithTable):
    """VideoMAEForPreTraining: assembly, last layer and targets for the tokens needed only."""

    table_name = "position_embeddings"

    @can_return_tuple  # type: ignore[untyped-decorator]
    def forward(
        self, pixel_values: Tensor, bool_masked_pos: Tensor | Masks, **kwargs: Any
    ) -> VideoMAEForPreTrainingOutput:
        """
        Args:
            pixel_values: [B, T, C, H, W], normalised, or uint8 frames [B, T, H, W, 3].
            bool_masked_pos: bool [B, N], True = not seen by the encoder; or Masks, which may hold a
                decoder mask too.

        Returns:
            Hugging Face's output; logits are those of the decoded tokens.
        """
        here: Any = self
        if not self._as_known(pixel_values, bool_masked_pos):
            masks = own_masks(bool_masked_pos, None, decodes=False)
            own: VideoMAEForPreTrainingOutput = super().forward(
                own_clips(pixel_values, here, channels=2), *masks, **kwargs
            )
            return own
        visible, decoded = visible_and_decoded(bool_masked_pos, None)
        outputs = here.videomae(pixel_values, bool_masked_pos=Visible(visible), **kwargs)
        seen = projected(here.encoder_to_decoder, outputs.last_hidden_state)
        seen = seen.to(torch.promote_types(seen.dtype, here.mask_token.dtype))
        table = self.table(seen)
        full = decoder_assembly(seen, here.mask_token, table, visible, decoded)
        shared = SharedTokens((here.mask_token[0] + table).to(full.dtype), decoded)
        logits = here.decoder(full, decoded.shape[1], shared).logits
        given = bool_masked_pos if isinstance(bool_masked_pos, Masks) else None
        return VideoMAEForPreTrainingOutput(
            loss=_loss(here.config, logits, pixel_values, decoded, given),
            logits=logits,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )

    def _as_known(self, pixel_values: Tensor, mask: Tensor | Masks | None) -> bool:
        """Whether encoder and decoder can be handed indices, and all shapes are the model's."""
        here: Any = self
        base: Any = here.videomae
        decoder: Any = here.decoder
        if not isinstance(base.embeddings, EmbeddingsForm) or not isinstance(decoder, DecoderForm):
            return False
        if mask is None or any(map(hooked, (base, base.embeddings, decoder))):
            return False
        clips = _channels_first(pixel_values)
        if (
            transformed()
            or why_unknown(here, "VideoMAEForPreTraining") is not None
            or why_unknown(base, "VideoMAEModel") is not None
            or why_unknown(decoder, "VideoMAEDecoder") is not None
            or not embeds_as_known(base.embeddings, clips)
        ):
            return False
        projection: Any = here.videomae.embeddings.patch_embeddings.projection
        tokens = clip_tokens(clips, projection, None)
        return tokens is not None and self.fits(tokens) and usual_masks(clips, projection, mask)


def _loss(
    config: Any, logits: Tensor, pixel_values: Tensor, decoded: Tensor, masks: Masks | None
) -> Tensor:
    """Mean over the tokens in the loss: all decoded ones, or what Masks say."""
    weight = None
    if masks is not None:
        logits, decoded = token_gather(logits, masks.loss_slot), masks.loss_index
        weight = masks.loss_weight
    if pixel_values.dtype == torch.uint8:
        loss_sum, total = pixel_mse(
            logits,
            pixel_values,
            decoded,
            weight,
            tubelet_size=config.tubelet_size,
            patch_size=config.patch_size,
            normalize=config.norm_pix_loss,
        )
        return loss_sum / total
    with torch.no_grad():
        target = _target(config, pixel_values, decoded)
    if weight is None:
        return F.mse_loss(logits, target)
    return ((logits - target).square().mean(-1) * weight).sum() / weight.sum()


def _target(config: Any, pixel_values: Tensor, index: Tensor) -> Tensor:
    """The target of the tokens at `index`, [B, K, tubelet · patch² · C], colour fastest."""
    cube = (config.tubelet_size, config.patch_size, config.patch_size)
    cubes = cubes_at(_channels_first(pixel_values), index, cube).flatten(3).transpose(2, 3)
    if config.num_channels == 3:
        mean = torch.tensor(IMAGENET_MEAN, dtype=cubes.dtype, device=cubes.device)
        cubes = cubes * torch.tensor(IMAGENET_STD, dtype=cubes.dtype, device=cubes.device) + mean
    elif not config.norm_pix_loss:
        raise ValueError(
            "clips that are not RGB have no known mean: with config.norm_pix_loss False, only RGB "
            "clips can be trained on"
        )
    if config.norm_pix_loss:
        spread = cubes.var(dim=-2, unbiased=True, keepdim=True).sqrt() + 1e-6
        cubes = (cubes - cubes.mean(dim=-2, keepdim=True)) / spread
    return cubes.flatten(2)


def _channels_first(pixel_values: Tensor) -> Tensor:
    """Clips as [B, C, T, H, W]; uint8 frames stay as they are."""
    if pixel_values.dtype == torch.uint8:
        return pixel_values
    return pixel_values.permute(0, 2, 1, 3, 4)
