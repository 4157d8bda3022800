"""The attentive probe: a few blocks over frozen tokens, a learned query, and a linear layer."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from videomae_fast.ops import attention


class AttentiveProbe(nn.Module):
    """Frozen tokens in, logits out. State-dict keys are those of vjepa2's classifier.

    Args:
        width: of the tokens.
        heads: of every attention.
        num_classes: of the linear layer.
        depth: blocks, the last of which is the cross-attention of the query; 1 has only that.
        mlp_ratio: hidden over outer width of the MLPs.

    Raises:
        ValueError: a number below 1, or heads that do not divide the width.

    Source: AttentiveClassifier and AttentivePooler in src/models/attentive_pooler.py of
        facebookresearch/vjepa2.
    """

    def __init__(
        self, width: int, heads: int, num_classes: int, *, depth: int = 4, mlp_ratio: float = 4.0
    ) -> None:
        for name, value in (("heads", heads), ("num_classes", num_classes), ("depth", depth)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, not {value}")
        if width % heads:
            raise ValueError(f"width {width} is no multiple of {heads} heads")
        super().__init__()
        self.pooler = _Pooler(width, heads, depth, int(width * mlp_ratio))
        self.linear = nn.Linear(width, num_classes)

    def pooled(self, tokens: Tensor) -> Tensor:
        """Tokens [B, N, width] to [B, width]."""
        out: Tensor = self.pooler(tokens)
        return out

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens [B, N, width] to logits [B, num_classes]."""
        out: Tensor = self.linear(self.pooled(tokens))
        return out


class _Pooler(nn.Module):
    def __init__(self, width: int, heads: int, depth: int, hidden: int) -> None:
        super().__init__()
        self.query_tokens = nn.Parameter(torch.zeros(1, 1, width))
        self.cross_attention_block = _CrossBlock(width, heads, hidden)
        self.blocks = nn.ModuleList(_Block(width, heads, hidden) for _ in range(depth - 1))
        nn.init.trunc_normal_(self.query_tokens, std=0.02)
        self.apply(_initialise)
        with torch.no_grad():  # what is added to the stream later starts smaller
            for i, block in enumerate(self.blocks, start=1):
                assert isinstance(block, _Block)
                block.attn.proj.weight.div_((2.0 * i) ** 0.5)
                block.mlp.fc2.weight.div_((2.0 * i) ** 0.5)
            self.cross_attention_block.mlp.fc2.weight.div_((2.0 * depth) ** 0.5)

    def forward(self, tokens: Tensor) -> Tensor:
        for block in self.blocks:
            tokens = block(tokens)
        query = self.query_tokens.expand(tokens.shape[0], -1, -1)
        out: Tensor = self.cross_attention_block(query, tokens)
        return out[:, 0]


class _Block(nn.Module):
    def __init__(self, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn = _SelfAttention(width, heads)
        self.mlp = _Mlp(width, hidden)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        out: Tensor = x + self.mlp(self.norm2(x))
        return out


class _CrossBlock(nn.Module):
    """The query is not normalised before its projection, and its attention has no output one."""

    def __init__(self, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.xattn = _CrossAttention(width, heads)
        self.mlp = _Mlp(width, hidden)

    def forward(self, query: Tensor, tokens: Tensor) -> Tensor:
        query = query + self.xattn(query, self.norm1(tokens))
        out: Tensor = query + self.mlp(self.norm2(query))
        return out


class _SelfAttention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        out: Tensor = self.proj(_attend(q, k, v, self.heads))
        return out


class _CrossAttention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q = nn.Linear(width, width)
        self.kv = nn.Linear(width, 2 * width)

    def forward(self, query: Tensor, tokens: Tensor) -> Tensor:
        k, v = self.kv(tokens).chunk(2, dim=-1)
        return _attend(self.q(query), k, v, self.heads)


class _Mlp(nn.Module):
    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.fc2(F.gelu(self.fc1(x)))
        return out


def _attend(q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
    b, _, width = q.shape
    split = (b, -1, heads, width // heads)
    return attention(q.reshape(split), k.reshape(split), v.reshape(split)).reshape(b, -1, width)


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)
