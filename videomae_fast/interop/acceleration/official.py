"""Forms of the official models (MCG-NJU/VideoMAE and OpenGVLab/VideoMAEv2), with their signatures.

A form computes in a module's place while all that it leaves out is as the module's own code expects
it, which is looked at in each call; else that code runs, with the inputs that it knows.

Source: models/modeling_pretrain.py and models/modeling_finetune.py of the official V2 code;
modeling_pretrain.py and modeling_finetune.py of V1.
"""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from videomae_fast.interop.acceleration.code import why_unknown
from videomae_fast.interop.acceleration.inputs import (
    Visible,
    chosen,
    clip_tokens,
    embed,
    own_clips,
    own_mask,
    own_masks,
    projected,
    usual_masks,
    visible_and_decoded,
    why_no_embedding,
)
from videomae_fast.interop.acceleration.official_blocks import OFFICIAL
from videomae_fast.interop.acceleration.plain import hooked, is_plain, transformed
from videomae_fast.interop.acceleration.tables import WithTable
from videomae_fast.interop.acceleration.views import drops, run, why_not_norms
from videomae_fast.masks import Masks
from videomae_fast.models.transformer import Branch, SharedTokens, add, add_norm
from videomae_fast.ops import decoder_assembly


class BlockForm(nn.Module):
    """A block that is called by itself."""

    def forward(self, x: Tensor, *size: int) -> Tensor:
        """[B, N, D] to [B, N, D]; OpenTAD's blocks take the height and width of the grid too."""
        here: Any = self
        adapter = getattr(here, "adapter", None) if getattr(here, "use_adapter", False) else None
        if transformed() or OFFICIAL.why_not(self) is not None or (size and adapter is None):
            out: Tensor = super().forward(x, *size)
            return out
        # OpenTAD's blocks recompute themselves
        if getattr(here, "with_cp", False) and x.requires_grad:
            whole: Tensor = checkpoint(_block, here, x, adapter, *size, use_reentrant=False)
            return whole
        return _block(here, x, adapter, *size)


def _block(block: Any, x: Tensor, adapter: Any, *size: int) -> Tensor:
    out = add(*OFFICIAL.view(block)(x))
    return out if adapter is None else adapter(out, *size)


def _run(
    module: Any, x: Tensor, queries: Tensor | None = None, shared: SharedTokens | None = None
) -> tuple[Tensor, Branch | None]:
    # V1 has use_checkpoint where V2 has with_cp
    checkpointing = getattr(module, "with_cp", False) or getattr(module, "use_checkpoint", False)
    return run(
        module.blocks,
        x,
        OFFICIAL,
        activation_checkpointing=checkpointing,
        queries=queries,
        shared=shared,
    )


def _embeds_as_known(model: Any, x: Tensor) -> bool:
    """Whether clips of this shape are embedded by a plain Conv3d and meet a table of their size."""
    patches = model.patch_embed
    if hooked(patches) or why_unknown(patches, "PatchEmbed") is not None:
        return False
    if why_no_embedding(patches.proj) is not None:
        return False
    tokens = clip_tokens(x, patches.proj, patches.img_size)
    return tokens is not None and bool(model.fits(tokens))


class EncoderForm(WithTable):
    """PretrainVisionTransformerEncoder: embeds the visible tokens only."""

    def forward_features(self, x: Tensor, mask: Tensor | Visible) -> Tensor:
        """
        Args:
            x: [B, 3, T, H, W], normalised, or uint8 frames [B, T, H, W, 3].
            mask: bool [B, N], True = not seen; or the visible tokens.

        Returns:
            [B, V, width].
        """
        here: Any = self
        patches = here.patch_embed
        if (
            transformed()
            or why_unknown(self, "PretrainVisionTransformerEncoder") is not None
            or not _embeds_as_known(here, x)
            or why_not_norms(here.norm, like=patches.proj) is not None
            or not (isinstance(mask, Visible) or usual_masks(x, patches.proj, mask))
        ):
            table = getattr(here, self.table_name)
            own: Any = super()
            out: Tensor = own.forward_features(own_clips(x, here), own_mask(mask, table.shape[1]))
            return out
        index = mask.tokens if isinstance(mask, Visible) else chosen(~mask)[0]
        tokens = embed(patches.proj, x, index)
        tokens = tokens + self.table(tokens)[index.long()].to(tokens.dtype)
        stream, branch = _run(self, tokens)
        return add_norm(stream, branch, here.norm)[0]


class DecoderForm(nn.Module):
    """PretrainVisionTransformerDecoder: its last block works for the predicted tokens only.

    Its first one makes queries, keys and values of mask tokens once per position, not per clip.
    """

    def forward(
        self, x: Tensor, return_token_num: int, shared: SharedTokens | None = None
    ) -> Tensor:
        """[B, L, width] to [B, return_token_num or L, pixels]: 0 stands for all.

        `shared`, where given, says that the last tokens are rows of one table.
        """
        here: Any = self
        if (
            transformed()
            or why_unknown(self, "PretrainVisionTransformerDecoder") is not None
            or len(here.blocks) == 0
            or OFFICIAL.why_not(here.blocks[0]) is not None
            or why_not_norms(here.norm, like=here.blocks[0].norm1) is not None
            or not 0 <= return_token_num <= x.shape[1]
        ):
            own: Tensor = super().forward(x, return_token_num)
            return own
        queries = None
        if return_token_num > 0:
            last = torch.arange(
                x.shape[1] - return_token_num, x.shape[1], dtype=torch.int32, device=x.device
            )
            queries = last.expand(x.shape[0], -1).contiguous()
        stream, branch = _run(self, x, queries, shared)
        return projected(here.head, add_norm(stream, branch, here.norm)[0])


class PretrainingForm(WithTable):
    """PretrainVisionTransformer."""

    def forward(self, x: Tensor, mask: Tensor | Masks, decode_mask: Tensor | None = None) -> Tensor:
        """
        Args:
            x: [B, 3, T, H, W], normalised, or uint8 frames [B, T, H, W, 3].
            mask: bool [B, N], True = not seen by the encoder; or Masks, both masks in one.
            decode_mask: bool [B, N], True = not decoded; None: decoded is what is not seen.

        Returns:
            [B, M, 3 · tubelet · patch²], the predictions of the decoded tokens.
        """
        here: Any = self
        if not self._as_known(x, mask, decode_mask):
            decodes = "decode_mask" in inspect.signature(super().forward).parameters
            masks = own_masks(mask, decode_mask, decodes=decodes)
            out: Tensor = super().forward(own_clips(x, here), *masks)
            return out
        visible, decoded = visible_and_decoded(mask, decode_mask)
        seen = projected(here.encoder_to_decoder, here.encoder(x, Visible(visible)))
        table = self.table(seen)
        # The official sum has the dtype of the table and the clips, also under autocast
        seen = seen.to(torch.promote_types(seen.dtype, here.mask_token.dtype))
        full = decoder_assembly(seen, here.mask_token, table, visible, decoded)
        shared = SharedTokens((here.mask_token[0] + table).to(full.dtype), decoded)
        own: Tensor = here.decoder(full, decoded.shape[1], shared)
        return own

    def _as_known(self, x: Tensor, mask: Tensor | Masks, decode_mask: Tensor | None) -> bool:
        """Whether encoder and decoder can be handed indices, and all shapes are the model's."""
        here: Any = self
        for part, form in ((here.encoder, EncoderForm), (here.decoder, DecoderForm)):
            if not isinstance(part, form) or hooked(part):
                return False
        if (
            transformed()
            or why_unknown(self, "PretrainVisionTransformer") is not None
            or why_unknown(here.encoder, "PretrainVisionTransformerEncoder") is not None
            or why_unknown(here.decoder, "PretrainVisionTransformerDecoder") is not None
            or not _embeds_as_known(here.encoder, x)
        ):
            return False
        proj = here.encoder.patch_embed.proj
        tokens = clip_tokens(x, proj, None)
        if tokens is None or not self.fits(tokens):
            return False
        given = (mask,) if decode_mask is None else (mask, decode_mask)
        return usual_masks(x, proj, *given)


class ClassifierForm(WithTable):
    """VisionTransformer, the official classifier."""

    def forward_features(self, x: Tensor) -> Tensor:
        """[B, 3, T, H, W], normalised, or uint8 frames [B, T, H, W, 3] to [B, width]."""
        here: Any = self
        pools = here.fc_norm is not None
        if (
            transformed()
            or why_unknown(self, "VisionTransformer") is not None
            or not _embeds_as_known(here, x)
            # V1 normalises all tokens before it pools them, V2 after
            or not is_plain(here.norm, nn.Identity if pools else nn.LayerNorm)
            # Dropout draws in the order of its input in memory, which differs
            or drops(here.pos_drop)
        ):
            own: Any = super()
            features: Tensor = own.forward_features(own_clips(x, here))
            return features
        tokens = embed(here.patch_embed.proj, x, None)
        tokens = tokens + self.table(tokens).to(tokens.dtype)
        stream, branch = _run(self, here.pos_drop(tokens))
        tokens = stream if branch is None else add(stream, branch)
        out: Tensor = here.fc_norm(tokens.mean(1)) if pools else here.norm(tokens[:, 0])
        return out
