"""The official computation, transcribed: what every speedup of this project is measured against.

Written from the facts of the official V2 code (models/modeling_pretrain.py,
models/modeling_finetune.py) with its work as it is: every token is patch-embedded by a Conv3d and
then mostly thrown away, tokens are chosen with boolean masks, attention is written out, position
tables live on the host, and the decoder's last block works for every token. State-dict keys are the
official ones. The loss and the training step are in :mod:`benchmarks.official.step`.

Two things can be repaired one by one, to say what each of them costs: where the position tables
live, and how attention is computed.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from videomae_fast.models.config import MAEConfig

Tables = Literal["as-shipped", "repaired"]
AttentionKind = Literal["eager", "sdpa"]
EPS = 1e-6


def select(tokens: Tensor, chosen: Tensor) -> Tensor:
    """[B, N, C] and bool [B, N], as many True in each row, to [B, K, C].

    Boolean indexing has to know K: on a GPU it waits for the device.
    """
    return tokens[chosen].reshape(tokens.shape[0], -1, tokens.shape[2])


def sinusoid(positions: int, width: int) -> Tensor:
    """fp32 [1, positions, width]: sines at even, cosines at odd columns."""
    column = torch.arange(width, dtype=torch.float64, device="cpu")
    rows = torch.arange(positions, dtype=torch.float64, device="cpu")
    angle = rows[:, None] / 10000 ** (2 * (column // 2) / width)
    angle[:, 0::2] = angle[:, 0::2].sin()
    angle[:, 1::2] = angle[:, 1::2].cos()
    return angle.float()[None]


class PositionTable(nn.Module):
    """The fixed table. As shipped: a host tensor, which no ``.to(device)`` reaches.

    Args:
        expanded: whether the official code expands this table to the batch before it copies it.
    """

    resident: Tensor

    def __init__(self, positions: int, width: int, tables: Tables, *, expanded: bool) -> None:
        super().__init__()
        self.tables, self.expanded = tables, expanded
        if tables == "as-shipped":
            self.host = sinusoid(positions, width)  # neither parameter nor buffer
        else:
            self.register_buffer("resident", sinusoid(positions, width), persistent=False)

    def forward(self, like: Tensor) -> Tensor:
        """[B or 1, positions, width], dtype and device of `like` [B, ...]."""
        if self.tables == "repaired":
            table = self.resident.to(like.dtype)
            return table.expand(like.shape[0], -1, -1) if self.expanded else table
        table = self.host.expand(like.shape[0], -1, -1) if self.expanded else self.host
        return table.type_as(like).to(like.device).clone().detach()


class SelfAttention(nn.Module):
    """softmax(Q Kᵀ) V with the score matrix in memory; q and v have a bias, k has a zero one."""

    def __init__(self, width: int, heads: int, kind: AttentionKind) -> None:
        super().__init__()
        self.heads, self.kind = heads, kind
        self.scale = (width // heads) ** -0.5
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.q_bias = nn.Parameter(torch.zeros(width))
        self.v_bias = nn.Parameter(torch.zeros(width))
        self.proj = nn.Linear(width, width)

    def bias(self) -> Tensor:
        """[3 · width], of queries, keys (zero) and values."""
        k_bias = torch.zeros_like(self.v_bias, requires_grad=False)
        return torch.cat((self.q_bias, k_bias, self.v_bias))

    def forward(self, x: Tensor) -> Tensor:
        return self.attend(F.linear(x, self.qkv.weight, self.bias()))

    def attend(self, packed: Tensor) -> Tensor:
        """[B, N, 3 · width], queries, keys and values, to [B, N, width]."""
        b, n, _ = packed.shape
        parts = packed.reshape(b, n, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        query, key, value = parts.unbind(0)  # each [B, heads, N, head dim]
        return self.mix(query, key, value)

    def mix(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """[B, heads, Nq or N, head dim] to [B, Nq, width]."""
        if self.kind == "sdpa":
            mixed = F.scaled_dot_product_attention(query, key, value)
        else:
            weights = ((query * self.scale) @ key.transpose(-2, -1)).softmax(dim=-1)
            mixed = weights @ value
        out: Tensor = self.proj(mixed.transpose(1, 2).flatten(2))
        return out


class FeedForward(nn.Module):
    """The MLP of a block, with GELU."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.fc2(F.gelu(self.fc1(x)))
        return out


class Layer(nn.Module):
    """A pre-norm block."""

    def __init__(self, width: int, heads: int, mlp_ratio: float, kind: AttentionKind) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=EPS)
        self.attn = SelfAttention(width, heads, kind)
        self.norm2 = nn.LayerNorm(width, eps=EPS)
        self.mlp = FeedForward(width, int(width * mlp_ratio))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        x = x + self.mlp(self.norm2(x))
        return x


def run_layers(layers: nn.ModuleList, x: Tensor, checkpointing: bool) -> Tensor:
    """The blocks one after the other, each under activation checkpointing where asked."""
    for layer in layers:
        x = checkpoint(layer, x, use_reentrant=False) if checkpointing else layer(x)
    return x


class CubeEmbedding(nn.Module):
    """fp32 [B, 3, T, H, W] to the embedding of every token, [B, N, width]."""

    def __init__(self, config: MAEConfig) -> None:
        super().__init__()
        cube = (config.tubelet_size, config.patch_size, config.patch_size)
        self.proj = nn.Conv3d(3, config.width, kernel_size=cube, stride=cube)

    def forward(self, images: Tensor) -> Tensor:
        out: Tensor = self.proj(images).flatten(2).transpose(1, 2)
        return out


class OfficialEncoder(nn.Module):
    """Patch embedding, positions, and blocks over the visible tokens."""

    def __init__(
        self, config: MAEConfig, tables: Tables, kind: AttentionKind, checkpointing: bool
    ) -> None:
        super().__init__()
        self.checkpointing = checkpointing
        self.patch_embed = CubeEmbedding(config)
        self.positions = PositionTable(config.grid.tokens, config.width, tables, expanded=False)
        self.blocks = nn.ModuleList(
            Layer(config.width, config.heads, config.mlp_ratio, kind) for _ in range(config.depth)
        )
        self.norm = nn.LayerNorm(config.width, eps=EPS)

    def forward(self, images: Tensor, masked: Tensor) -> Tensor:
        tokens = self.patch_embed(images)
        tokens = tokens + self.positions(tokens)
        seen = run_layers(self.blocks, select(tokens, ~masked), self.checkpointing)
        out: Tensor = self.norm(seen)
        return out


class OfficialDecoder(nn.Module):
    """Blocks over visible tokens and mask tokens, and the head that predicts pixels."""

    def __init__(self, config: MAEConfig, kind: AttentionKind, checkpointing: bool) -> None:
        super().__init__()
        self.checkpointing = checkpointing
        width = config.decoder_width
        self.blocks = nn.ModuleList(
            Layer(width, config.decoder_heads, config.mlp_ratio, kind)
            for _ in range(config.decoder_depth)
        )
        self.norm = nn.LayerNorm(width, eps=EPS)
        self.head = nn.Linear(width, config.patch_values)

    def forward(self, x: Tensor, predicted: int) -> Tensor:
        """[B, L, width] to the pixels of the last `predicted` tokens."""
        x = run_layers(self.blocks, x, self.checkpointing)
        out: Tensor = self.head(self.norm(x[:, -predicted:]))
        return out


class OfficialPretraining(nn.Module):
    """The official masked autoencoder, V1 (no decoder mask) and V2.

    Args:
        config: shape; learned positions and LayerScale are not transcribed.
        tables: "as-shipped": position tables on the host, copied each step; "repaired": buffers.
        attention: "eager" as shipped, or "sdpa" (torch's scaled_dot_product_attention).
        checkpointing: activation checkpointing, as the official scripts of ViT-H and ViT-g use.

    Raises:
        ValueError: a config with what is not transcribed.
    """

    def __init__(
        self,
        config: MAEConfig,
        *,
        tables: Tables = "as-shipped",
        attention: AttentionKind = "eager",
        checkpointing: bool = False,
    ) -> None:
        super().__init__()
        _check(config)
        self.config = config
        self.encoder = OfficialEncoder(config, tables, attention, checkpointing)
        self.decoder = OfficialDecoder(config, attention, checkpointing)
        self.encoder_to_decoder = nn.Linear(config.width, config.decoder_width, bias=False)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, config.decoder_width))
        self.positions = PositionTable(
            config.grid.tokens, config.decoder_width, tables, expanded=True
        )

    def forward(
        self, images: Tensor, encoder_mask: Tensor, decoder_mask: Tensor | None = None
    ) -> Tensor:
        """
        Args:
            images: fp32 [B, 3, T, H, W], mean and standard deviation of ImageNet taken out.
            encoder_mask: bool [B, N], True = not seen by the encoder.
            decoder_mask: bool [B, N], True = not decoded; None decodes what the encoder can't see.

        Returns:
            [B, M, 3 · tubelet · patch²], predictions of the decoded tokens.
        """
        decoded = encoder_mask if decoder_mask is None else ~decoder_mask
        seen = self.encoder_to_decoder(self.encoder(images, encoder_mask))
        table = self.positions(images)
        hidden = self.mask_token + select(table, decoded)
        sequence = torch.cat([seen + select(table, ~encoder_mask), hidden], dim=1)
        out: Tensor = self.decoder(sequence, hidden.shape[1])
        return out


class OfficialClassifier(nn.Module):
    """The official video classifier: all tokens, mean-pooled. Other arguments as above."""

    def __init__(
        self,
        config: MAEConfig,
        num_classes: int,
        *,
        tables: Tables = "as-shipped",
        attention: AttentionKind = "eager",
    ) -> None:
        super().__init__()
        _check(config)
        self.config = config
        self.patch_embed = CubeEmbedding(config)
        self.positions = PositionTable(config.grid.tokens, config.width, tables, expanded=True)
        self.blocks = nn.ModuleList(
            Layer(config.width, config.heads, config.mlp_ratio, attention)
            for _ in range(config.depth)
        )
        self.fc_norm = nn.LayerNorm(config.width, eps=EPS)
        self.head = nn.Linear(config.width, num_classes)

    def features(self, images: Tensor) -> Tensor:
        """fp32 [B, 3, T, H, W], normalised, to [B, width]."""
        tokens = self.patch_embed(images)
        tokens = tokens + self.positions(tokens)
        out: Tensor = self.fc_norm(run_layers(self.blocks, tokens, False).mean(1))
        return out

    def forward(self, images: Tensor) -> Tensor:
        out: Tensor = self.head(self.features(images))
        return out


def _check(config: MAEConfig) -> None:
    if config.learned_positions or config.layer_scale:
        raise ValueError("the transcription has neither learned positions nor LayerScale")
