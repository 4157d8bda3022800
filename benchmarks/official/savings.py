"""The official computation without the work whose result it throws away, one saving at a time.

What each exact saving is worth by itself, in plain PyTorch and with everything else as the official
code has it: boolean masks, fp32 clips, separate passes. Ours has all of them, in kernels.

R1 and R2 leave out rows of matmuls. R3 shares the first decoder block's LayerNorm and QKV of mask
tokens among clips: what goes in there is ``mask_token + position``, the same for every clip.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from contextlib import nullcontext
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from benchmarks.official.model import AttentionKind, Layer, OfficialPretraining, Tables, select
from benchmarks.official.step import per_channel, targets
from videomae_fast.masks import MaskSpec
from videomae_fast.models.config import MAEConfig
from videomae_fast.models.flops import flops
from videomae_fast.models.flops import savings as left_out
from videomae_fast.ops import IMAGENET_MEAN, IMAGENET_STD

Saving = Literal["needed-targets", "R1", "R2", "R3"]
SAVINGS: tuple[Saving, ...] = get_args(Saving)


class SavingPretraining(OfficialPretraining):
    """The official model with some of :data:`SAVINGS`; weights and keys are the same.

    Args:
        savings: "R1": only visible tokens are embedded; "R2": queries, projection and MLP of the
            decoder's last block, and the head, for tokens in the loss only; "R3": the first
            block's mask tokens are normalised and projected once for all clips.

    Raises:
        ValueError: an unknown saving; R2 and R3 where the first block is the last.
    """

    def __init__(
        self,
        config: MAEConfig,
        savings: Collection[Saving],
        *,
        tables: Tables = "as-shipped",
        attention: AttentionKind = "eager",
    ) -> None:
        super().__init__(config, tables=tables, attention=attention)
        unknown = sorted(set(savings) - set(SAVINGS))
        if unknown:
            raise ValueError(f"unknown savings {unknown}; there are {', '.join(SAVINGS)}")
        if config.decoder_depth == 1 and {"R2", "R3"} <= set(savings):
            raise ValueError("with one decoder block, it is R2 or R3")
        self.savings = frozenset(savings)

    def forward(
        self, images: Tensor, encoder_mask: Tensor, decoder_mask: Tensor | None = None
    ) -> Tensor:
        """As the official model; with R2 the predictions of the tokens in the loss only."""
        decoded = encoder_mask if decoder_mask is None else ~decoder_mask
        seen = self.encoder_to_decoder(self._encode(images, encoder_mask))
        table = self.positions(images)
        seen = seen + select(table, ~encoder_mask)
        blocks: list[Layer] = list(self.decoder.blocks)  # type: ignore[arg-type]
        if "R3" in self.savings:
            x = _first_block(blocks.pop(0), seen, self.mask_token + table[:1], decoded)
        else:
            x = torch.cat([seen, self.mask_token + select(table, decoded)], dim=1)
        last = blocks.pop() if "R2" in self.savings else None
        for block in blocks:
            x = block(x)
        if last is None:
            x = x[:, seen.shape[1] :]
        else:
            in_loss = encoder_mask[decoded].reshape(len(images), -1)
            asking = F.pad(in_loss, (seen.shape[1], 0))  # no visible token asks
            x = _last_block(last, x, asking)
        out: Tensor = self.decoder.head(self.decoder.norm(x))
        return out

    def _encode(self, images: Tensor, masked: Tensor) -> Tensor:
        if "R1" not in self.savings:
            encoded: Tensor = self.encoder(images, masked)
            return encoded
        encoder = self.encoder
        cut = cubes_view(images, self.config.tubelet_size, self.config.patch_size)
        visible = ~masked.view(cut.shape[:4])
        rows = cut[visible].flatten(1)  # (c, p0, p1, p2), as the Conv3d's weight
        weight, bias = encoder.patch_embed.proj.weight, encoder.patch_embed.proj.bias
        tokens = F.linear(rows, weight.flatten(1), bias).view(len(images), -1, weight.shape[0])
        positions = encoder.positions(tokens).expand(len(images), -1, -1)
        x = tokens + select(positions, ~masked)
        for block in encoder.blocks:
            x = block(x)
        out: Tensor = encoder.norm(x)
        return out


def cubes_view(images: Tensor, tubelet: int, patch: int) -> Tensor:
    """[B, 3, T, H, W] as [B, slots, rows, columns, 3, tubelet, patch, patch]; nothing is copied."""
    layout = "b c (t p0) (h p1) (w p2) -> b t h w c p0 p1 p2"
    return rearrange(images, layout, p0=tubelet, p1=patch, p2=patch)


def _first_block(layer: Layer, seen: Tensor, hidden: Tensor, decoded: Tensor) -> Tensor:
    """The block over visible tokens [B, V, width] and the `decoded` ones of hidden [1, N, width].

    Rows are taken by index: their gradients add up over the clips.
    """
    b, n = decoded.shape
    position = decoded.flatten().nonzero().squeeze(1) % n

    def of_clips(shared: Tensor) -> Tensor:
        return shared[0].index_select(0, position).view(b, -1, shared.shape[2])

    attn = layer.attn
    packed = [F.linear(layer.norm1(x), attn.qkv.weight, attn.bias()) for x in (seen, hidden)]
    mixed = attn.attend(torch.cat([packed[0], of_clips(packed[1])], dim=1))
    x = torch.cat([seen, of_clips(hidden)], dim=1) + mixed
    return x + layer.mlp(layer.norm2(x))  # type: ignore[no-any-return]


def _last_block(layer: Layer, x: Tensor, asking: Tensor) -> Tensor:
    """The block's output for the `asking` tokens (bool [B, L]) alone: [B, P, width]."""
    attn, width = layer.attn, x.shape[2]
    normal = layer.norm1(x)
    weight, bias = attn.qkv.weight, attn.bias()
    query = F.linear(select(normal, asking), weight[:width], bias[:width])
    key, value = F.linear(normal, weight[width:], bias[width:]).chunk(2, dim=-1)

    def heads(part: Tensor) -> Tensor:
        return part.reshape(*part.shape[:2], attn.heads, -1).transpose(1, 2)

    x = select(x, asking) + attn.mix(heads(query), heads(key), heads(value))
    return x + layer.mlp(layer.norm2(x))  # type: ignore[no-any-return]


@torch.no_grad()
def needed_targets(images: Tensor, wanted: Tensor, tubelet: int, patch: int) -> Tensor:
    """The targets of the `wanted` tokens (bool [B, N]) alone: fp32 [B, K, 3 · tubelet · patch²]."""
    cut = cubes_view(images, tubelet, patch)
    rows = rearrange(cut[wanted.view(cut.shape[:4])], "bk c p0 p1 p2 -> bk (p0 p1 p2) c")
    mean, std = (per_channel(v, images.device).view(1, 1, 3) for v in (IMAGENET_MEAN, IMAGENET_STD))
    pixels = rows * std + mean
    centred = pixels - pixels.mean(dim=-2, keepdim=True)
    pixels = centred / (pixels.var(dim=-2, unbiased=True, keepdim=True).sqrt() + 1e-6)
    return rearrange(pixels, "(b k) p c -> b k (p c)", b=len(images))


def saving_loss(
    model: Callable[..., Tensor],
    savings: Collection[Saving],
    images: Tensor,
    encoder_mask: Tensor,
    decoder_mask: Tensor,
    *,
    tubelet: int,
    patch: int,
    autocast: torch.dtype | None = None,
) -> Tensor:
    """:func:`benchmarks.official.step.pretraining_loss` of a :class:`SavingPretraining`.

    "needed-targets": targets of the predicted tokens alone. With R2 every prediction counts.
    """
    wanted = ~decoder_mask
    if "R2" in savings:
        wanted = wanted & encoder_mask
    if "needed-targets" in savings:
        label = needed_targets(images, wanted, tubelet, patch)
    else:
        label = select(targets(images, tubelet, patch), wanted)
    mixed = nullcontext() if autocast is None else torch.autocast(images.device.type, autocast)
    with mixed:
        error = ((model(images, encoder_mask, decoder_mask) - label) ** 2).mean(dim=-1)
        if "R2" in savings:
            return error.mean()
        counted = encoder_mask[~decoder_mask].reshape(error.shape)
        return (error * counted).sum() / counted.sum()


def multiply_adds(
    config: MAEConfig, spec: MaskSpec, savings: Collection[Saving], batch: int
) -> float:
    """Of one clip's forward pass; R3's shared rows are spread over the clips of a batch."""
    total = float(sum(flops(config, spec, "official").values()))
    # `left_out` counts R3 after R2, which it need not be combined with here.
    first = set(savings) - {"R3"}
    total -= sum(s.multiply_adds for s in left_out(config, spec) if s.name in first)
    if "R3" in savings:
        rows = spec.counts(config.grid).decoder - config.grid.tokens / batch
        total -= rows * 3 * config.decoder_width**2
    return total
