"""Models with the module names, shapes and signatures of the official code, written for the tests.

They compute what the official modules do, plainly; tests/golden ties them to the official values.
V1 is V2 without the decoder's mask.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint


class DropPath(nn.Module):
    def __init__(self, drop_prob):
        super().__init__()
        self.drop_prob = drop_prob

    def forward(self, x):
        if not self.training or not self.drop_prob:
            return x
        keep = 1 - self.drop_prob
        shape = (len(x), *[1] * (x.ndim - 1))
        return x * x.new_empty(shape).bernoulli_(keep).div_(keep)


class Mlp(nn.Module):
    def __init__(self, width, hidden, act, drop):
        super().__init__()
        self.fc1, self.act, self.fc2 = nn.Linear(width, hidden), act, nn.Linear(hidden, width)
        self.drop = nn.Dropout(drop)

    def forward(self, x):
        return self.drop(self.fc2(self.act(self.fc1(x))))


class Attention(nn.Module):
    def __init__(self, width, num_heads, drop, qkv_bias):
        super().__init__()
        self.num_heads, self.scale = num_heads, (width // num_heads) ** -0.5
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.q_bias = nn.Parameter(torch.zeros(width)) if qkv_bias else None
        self.v_bias = nn.Parameter(torch.zeros(width)) if qkv_bias else None
        self.attn_drop, self.proj_drop = nn.Dropout(drop), nn.Dropout(drop)
        self.proj = nn.Linear(width, width)

    def forward(self, x):
        b, n, c = x.shape
        parts = self.qkv(x).view(b, n, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
        q, k, v = parts
        if self.q_bias is not None:
            q = q + self.q_bias.view(self.num_heads, 1, -1)
            v = v + self.v_bias.view(self.num_heads, 1, -1)
        weights = self.attn_drop((q * self.scale @ k.mT).softmax(-1))
        return self.proj_drop(self.proj((weights @ v).transpose(1, 2).reshape(b, n, c)))


class CosAttention(Attention):
    def forward(self, x):
        return super().forward(nn.functional.normalize(x, dim=-1))


class Block(nn.Module):
    def __init__(self, width, heads, mlp_ratio=4.0, *, drop=0.0, drop_path=0.0, init_values=0.0,
                 act=None, qkv_bias=True, attention=Attention):  # fmt: skip
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.attn = attention(width, heads, drop, qkv_bias)
        self.drop_path = DropPath(drop_path) if drop_path > 0 else nn.Identity()
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = Mlp(width, int(width * mlp_ratio), act or nn.GELU(), drop)
        self.gamma_1 = self.gamma_2 = None
        if init_values > 0:
            self.gamma_1 = nn.Parameter(init_values * torch.ones(width))
            self.gamma_2 = nn.Parameter(init_values * torch.ones(width))

    def forward(self, x):
        one, two = (1, 1) if self.gamma_1 is None else (self.gamma_1, self.gamma_2)
        x = x + self.drop_path(one * self.attn(self.norm1(x)))
        return x + self.drop_path(two * self.mlp(self.norm2(x)))


class PatchEmbed(nn.Module):
    def __init__(self, img_size, patch_size, width, all_frames, tubelet_size):
        super().__init__()
        self.img_size = (img_size, img_size)
        cube = (tubelet_size, patch_size, patch_size)
        self.num_patches = (img_size // patch_size) ** 2 * (all_frames // tubelet_size)
        self.proj = nn.Conv3d(3, width, kernel_size=cube, stride=cube)

    def forward(self, x):
        assert tuple(x.shape[-2:]) == self.img_size
        return self.proj(x).flatten(2).transpose(1, 2)


def positions(count, width):
    """A plain tensor on the host, [1, count, width]: no buffer, as in the official code."""
    column = np.arange(width)
    angle = np.arange(count)[:, None] / np.power(10000, 2 * (column // 2) / width)
    table = np.where(column % 2 == 0, np.sin(angle), np.cos(angle))
    return torch.tensor(table, dtype=torch.float)[None]


def _stack(depth, width, heads, mlp_ratio, drop_path=0.0, **settings):
    rates = torch.linspace(0, drop_path, depth).tolist()
    return nn.ModuleList(
        Block(width, heads, mlp_ratio, drop_path=rate, **settings) for rate in rates
    )


def _through(module, x):
    for block in module.blocks:
        x = checkpoint(block, x, use_reentrant=False) if module.with_cp else block(x)
    return x


class PretrainVisionTransformerEncoder(nn.Module):
    def __init__(self, img_size, patch_size, width, depth, heads, all_frames, tubelet_size, with_cp,
                 mlp_ratio, **settings):  # fmt: skip
        super().__init__()
        self.patch_embed = PatchEmbed(img_size, patch_size, width, all_frames, tubelet_size)
        self.pos_embed = positions(self.patch_embed.num_patches, width)
        self.with_cp = with_cp
        self.blocks = _stack(depth, width, heads, mlp_ratio, **settings)
        self.norm, self.head = nn.LayerNorm(width, eps=1e-6), nn.Identity()

    def forward_features(self, x, mask):
        x = self.patch_embed(x)
        x = x + self.pos_embed.type_as(x).to(x.device).detach()
        return self.norm(_through(self, x[~mask].reshape(len(x), -1, x.shape[-1])))

    def forward(self, x, mask):
        return self.head(self.forward_features(x, mask))


class PretrainVisionTransformerDecoder(nn.Module):
    def __init__(self, pixels, width, depth, heads, with_cp, mlp_ratio, **settings):
        super().__init__()
        self.with_cp = with_cp
        self.blocks = _stack(depth, width, heads, mlp_ratio, **settings)
        self.norm, self.head = nn.LayerNorm(width, eps=1e-6), nn.Linear(width, pixels)

    def forward(self, x, return_token_num):
        x = _through(self, x)
        return self.head(self.norm(x[:, -return_token_num:] if return_token_num > 0 else x))


class PretrainVisionTransformer(nn.Module):
    def __init__(self, img_size=32, patch_size=16, width=32, depth=2, heads=2, decoder_width=16,
                 decoder_depth=2, decoder_heads=1, all_frames=8, tubelet_size=2, with_cp=False,
                 mlp_ratio=4.0, **settings):  # fmt: skip
        super().__init__()
        self.encoder = PretrainVisionTransformerEncoder(
            img_size, patch_size, width, depth, heads, all_frames, tubelet_size, with_cp, mlp_ratio,
            **settings,
        )  # fmt: skip
        pixels = 3 * tubelet_size * patch_size**2
        self.decoder = PretrainVisionTransformerDecoder(
            pixels, decoder_width, decoder_depth, decoder_heads, with_cp, mlp_ratio, **settings
        )
        self.encoder_to_decoder = nn.Linear(width, decoder_width, bias=False)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, decoder_width))
        self.pos_embed = positions(self.encoder.patch_embed.num_patches, decoder_width)

    def forward(self, x, mask, decode_mask=None):
        decoded = mask if decode_mask is None else ~decode_mask
        seen = self.encoder_to_decoder(self.encoder(x, mask))
        table = self.pos_embed.expand(len(x), -1, -1).type_as(x).to(x.device).detach()
        shape = (len(x), -1, table.shape[-1])
        hidden = self.mask_token + table[decoded].reshape(shape)
        full = torch.cat([seen + table[~mask].reshape(shape), hidden], dim=1)
        return self.decoder(full, hidden.shape[1])


class VisionTransformer(nn.Module):
    def __init__(self, img_size=32, patch_size=16, num_classes=5, width=32, depth=2, heads=2,
                 all_frames=8, tubelet_size=2, with_cp=False, use_mean_pooling=True, mlp_ratio=4.0,
                 **settings):  # fmt: skip
        super().__init__()
        self.patch_embed = PatchEmbed(img_size, patch_size, width, all_frames, tubelet_size)
        self.pos_embed = positions(self.patch_embed.num_patches, width)
        self.pos_drop, self.with_cp = nn.Dropout(0.0), with_cp
        self.blocks = _stack(depth, width, heads, mlp_ratio, **settings)
        self.norm = nn.Identity() if use_mean_pooling else nn.LayerNorm(width, eps=1e-6)
        self.fc_norm = nn.LayerNorm(width, eps=1e-6) if use_mean_pooling else None
        self.head_dropout = nn.Dropout(0.0)
        self.head = nn.Linear(width, num_classes)

    def forward_features(self, x):
        x = self.patch_embed(x)
        x = _through(self, self.pos_drop(x + self.pos_embed.type_as(x).to(x.device).detach()))
        return self.norm(x[:, 0]) if self.fc_norm is None else self.fc_norm(x.mean(1))

    def forward(self, x):
        return self.head(self.head_dropout(self.forward_features(x)))
