"""Blocks with the structure of mmaction2's, OpenTAD's and the authors' action detection's."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from tests.support import stand_ins


def timm_drop_path(x, drop_prob=0.0, training=False):
    """As timm 0.4.12 draws, the version that the official code asks for."""
    if drop_prob == 0.0 or not training:
        return x
    kept = 1 - drop_prob
    uniform = torch.rand((x.shape[0],) + (1,) * (x.ndim - 1), dtype=x.dtype, device=x.device)
    return x.div(kept) * (uniform + kept).floor_()


class TimmDropPath(nn.Module):
    def __init__(self, drop_prob):
        super().__init__()
        self.drop_prob = drop_prob

    def forward(self, x):
        return timm_drop_path(x, self.drop_prob, self.training)


class FeedForward(nn.Module):
    """mmcv's FFN: other names, and code that is not known."""

    def __init__(self, width, hidden):
        super().__init__()
        first = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Dropout(0.0))
        self.layers = nn.Sequential(first, nn.Linear(hidden, width), nn.Dropout(0.0))

    def forward(self, x, identity=None):
        return self.layers(x)


class FusedAttention(stand_ins.Attention):
    """OpenTAD's: torch's fused attention, whose dropout takes no notice of the mode."""

    def forward(self, x):
        b, n, c = x.shape
        bias = torch.cat([self.q_bias, torch.zeros_like(self.v_bias), self.v_bias])
        packed = F.linear(x, self.qkv.weight, bias).view(b, n, 3, self.num_heads, -1)
        q, k, v = packed.permute(2, 0, 3, 1, 4)
        out = F.scaled_dot_product_attention(q, k, v, dropout_p=self.attn_drop.p)
        return self.proj_drop(self.proj(out.transpose(1, 2).reshape(b, n, c)))


class Adapter(nn.Module):
    """A convolution along the time of tokens [slots, h, w]."""

    temporal_size = 4

    def __init__(self, width):
        super().__init__()
        self.conv = nn.Conv1d(width, width, 3, padding=1, groups=width)

    def forward(self, x, h, w):
        lines = x.unflatten(1, (self.temporal_size, h * w)).permute(0, 2, 3, 1)
        moved = self.conv(lines.flatten(0, 1)).unflatten(0, lines.shape[:2])
        return x + moved.permute(0, 3, 1, 2).flatten(1, 2)


def _parts(block, width, heads, drop_path, attention):
    block.norm1, block.norm2 = nn.LayerNorm(width, eps=1e-6), nn.LayerNorm(width, eps=1e-6)
    block.attn = attention(width, heads, 0.0, True)
    block.drop_path = TimmDropPath(drop_path) if drop_path > 0 else nn.Identity()
    block.mlp = FeedForward(width, 4 * width)


class Block(nn.Module):
    """mmaction2's."""

    def __init__(self, width, heads, drop_path=0.0):
        super().__init__()
        _parts(self, width, heads, drop_path, stand_ins.Attention)

    def forward(self, x):
        x = x + self.drop_path(self.attn(self.norm1(x)))
        return x + self.drop_path(self.mlp(self.norm2(x)))


class CheckpointedBlock(nn.Module):
    """OpenTAD's vit.py: it recomputes itself in the backward pass."""

    def __init__(self, width, heads, drop_path=0.0):
        super().__init__()
        self.with_cp = True
        _parts(self, width, heads, drop_path, FusedAttention)

    def forward(self, x):
        def inner(x):
            x = x + self.drop_path(self.attn(self.norm1(x)))
            return x + self.drop_path(self.mlp(self.norm2(x)))

        if self.with_cp and x.requires_grad:
            return torch.utils.checkpoint.checkpoint(inner, x, use_reentrant=False)
        return inner(x)


class AdapterBlock(CheckpointedBlock):
    """OpenTAD's vit_adapter.py: an adapter behind the MLP."""

    def __init__(self, width, heads, drop_path=0.0):
        super().__init__(width, heads, drop_path)
        self.use_adapter, self.adapter = True, Adapter(width)

    def forward(self, x, h, w):
        def inner(x):
            x = x + self.drop_path(self.attn(self.norm1(x)))
            x = x + self.drop_path(self.mlp(self.norm2(x)))
            return self.adapter(x, h, w)

        if self.with_cp and x.requires_grad:
            return torch.utils.checkpoint.checkpoint(inner, x, use_reentrant=False)
        return inner(x)


class Backbone(nn.Module):
    """A model that is not known, of blocks that are: a detector's, or the action detection's."""

    def __init__(self, block, width=32, heads=2, depth=3, size=()):
        super().__init__()
        self.embed = nn.Linear(5, width)
        self.blocks = nn.ModuleList(block(width, heads, drop_path=0.2 * i) for i in range(depth))
        self.norm, self.size = nn.LayerNorm(width), size

    def forward(self, x):
        x = self.embed(x)
        for block in self.blocks:
            x = block(x, *self.size)
        return self.norm(x).amax(1)
