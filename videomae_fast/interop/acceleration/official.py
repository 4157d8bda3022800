"""Forms of the official models (MCG-NJU/VideoMAE and OpenGVLab/VideoMAEv2), with their signatures.

Source: models/modeling_pretrain.py and models/modeling_finetune.py of the official V2 code;
modeling_pretrain.py and modeling_finetune.py of V1.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from videomae_fast.interop.acceleration.inputs import (
    chosen,
    embed,
    visible_and_decoded,
)
from videomae_fast.interop.acceleration.tables import WithTable
from videomae_fast.interop.acceleration.views import (
    hooked_within,
    of_official,
    run,
    why_not_official,
)
from videomae_fast.masking import Masks
from videomae_fast.models.transformer import Branch, SharedTokens, add, add_norm
from videomae_fast.ops import decoder_assembly


class BlockForm(nn.Module):
    """A block that is called by itself."""

    def forward(self, x: Tensor) -> Tensor:
        # Hooks within see the block's own computation
        if hooked_within(self) or why_not_official(self) is not None:
            out: Tensor = super().forward(x)
            return out
        return add(*of_official(self)(x))


def _run(
    module: Any, x: Tensor, queries: Tensor | None = None, shared: SharedTokens | None = None
) -> tuple[Tensor, Branch | None]:
    # V1 has use_checkpoint where V2 has with_cp
    checkpointing = getattr(module, "with_cp", False) or getattr(module, "use_checkpoint", False)
    return run(
        module.blocks,
        x,
        of_official,
        why_not_official,
        activation_checkpointing=checkpointing,
        queries=queries,
        shared=shared,
    )


class EncoderForm(WithTable):
    """PretrainVisionTransformerEncoder: embeds the visible tokens only."""

    def forward_features(self, x: Tensor, mask: Tensor) -> Tensor:
        """
        Args:
            x: [B, 3, T, H, W], normalised, or uint8 frames [B, T, H, W, 3].
            mask: bool [B, N], True = not seen; or int32 [B, V], the visible tokens.

        Returns:
            [B, V, width].
        """
        here: Any = self
        index = chosen(~mask)[0] if mask.dtype == torch.bool else mask
        tokens = embed(here.patch_embed.proj, x, index)
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
        queries = None
        if return_token_num > 0:
            last = torch.arange(
                x.shape[1] - return_token_num, x.shape[1], dtype=torch.int32, device=x.device
            )
            queries = last.expand(x.shape[0], -1).contiguous()
        stream, branch = _run(self, x, queries, shared)
        out: Tensor = here.head(add_norm(stream, branch, here.norm)[0])
        return out


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
        visible, decoded = visible_and_decoded(mask, decode_mask)
        seen = here.encoder_to_decoder(here.encoder(x, visible))
        table = self.table(seen)
        # The official sum has the dtype of the table and the clips, also under autocast
        seen = seen.to(torch.promote_types(seen.dtype, here.mask_token.dtype))
        full = decoder_assembly(seen, here.mask_token, table, visible, decoded)
        shared = SharedTokens((here.mask_token[0] + table).to(full.dtype), decoded)
        out: Tensor = here.decoder(full, decoded.shape[1], shared)
        return out


class ClassifierForm(WithTable):
    """VisionTransformer, the official classifier."""

    def forward_features(self, x: Tensor) -> Tensor:
        """[B, 3, T, H, W], normalised, or uint8 frames [B, T, H, W, 3] to [B, width]."""
        here: Any = self
        tokens = embed(here.patch_embed.proj, x, None)
        tokens = tokens + self.table(tokens).to(tokens.dtype)
        stream, branch = _run(self, here.pos_drop(tokens))
        tokens = stream if branch is None else add(stream, branch)
        pooled = tokens[:, 0] if here.fc_norm is None else tokens.mean(1)
        out: Tensor = (here.norm if here.fc_norm is None else here.fc_norm)(pooled)
        return out
