"""The transformer block of VideoMAE: pre-norm, joint space-time attention, GELU MLP."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from videomae_fast.ops import attention, token_gather

NORM_EPS = 1e-6


class Attention(nn.Module):
    """Multi-head attention with a bias on queries and values and none on keys."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q_bias = nn.Parameter(torch.zeros(width))
        self.v_bias = nn.Parameter(torch.zeros(width))
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.proj = nn.Linear(width, width)

    def forward(
        self, x: Tensor, *, queries: Tensor | None = None, key_count: Tensor | None = None
    ) -> Tensor:
        """
        Args:
            x: [B, N, D], normalised.
            queries: int32 [B, K], the tokens that ask; None: all.
            key_count: int32 [B], how many of the first tokens take part as keys; None: all.

        Returns:
            [B, K or N, D].
        """
        b, _, width = x.shape
        split = (b, -1, self.heads, width // self.heads)
        no_bias = torch.zeros_like(self.v_bias)
        if queries is None:
            bias = torch.cat([self.q_bias, no_bias, self.v_bias])
            q, k, v = F.linear(x, self.qkv.weight, bias).chunk(3, dim=-1)
        else:
            asking = token_gather(x, queries)
            q = F.linear(asking, self.qkv.weight[:width], self.q_bias)
            bias = torch.cat([no_bias, self.v_bias])
            k, v = F.linear(x, self.qkv.weight[width:], bias).chunk(2, dim=-1)
        out = attention(q.reshape(split), k.reshape(split), v.reshape(split), key_count=key_count)
        projected: Tensor = self.proj(out.reshape(b, -1, width))
        return projected


class Mlp(nn.Module):
    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.fc2(F.gelu(self.fc1(x)))
        return out


class DropPath(nn.Module):
    """Stochastic depth: drops a residual branch for a whole clip, and scales it up otherwise."""

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.probability = probability

    def forward(self, x: Tensor) -> Tensor:
        if self.probability == 0.0 or not self.training:
            return x
        kept = 1.0 - self.probability
        mask = x.new_empty((x.shape[0],) + (1,) * (x.ndim - 1)).bernoulli_(kept)
        return x * mask.div_(kept)

    def extra_repr(self) -> str:
        return f"probability={self.probability:.3f}"


class Block(nn.Module):
    """x + attention(norm(x)), then x + MLP(norm(x)).

    Source: Block in models/modeling_finetune.py of the official V2 code.
    """

    def __init__(
        self, width: int, heads: int, mlp_ratio: float, drop_path: float, layer_scale: float
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=NORM_EPS)
        self.attn = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width, eps=NORM_EPS)
        self.mlp = Mlp(width, int(width * mlp_ratio))
        self.drop_path = DropPath(drop_path)
        self.gamma_1: nn.Parameter | None = None
        self.gamma_2: nn.Parameter | None = None
        if layer_scale > 0:
            self.gamma_1 = nn.Parameter(layer_scale * torch.ones(width))
            self.gamma_2 = nn.Parameter(layer_scale * torch.ones(width))

    def forward(
        self, x: Tensor, *, queries: Tensor | None = None, key_count: Tensor | None = None
    ) -> Tensor:
        """
        Args:
            x: [B, N, D].
            queries: int32 [B, K], the tokens whose output is wanted; None: all. The others serve
                as keys and values only.
            key_count: int32 [B], how many of the first tokens take part as keys; None: all.

        Returns:
            [B, K or N, D].
        """
        branch = self.attn(self.norm1(x), queries=queries, key_count=key_count)
        if queries is not None:
            x = token_gather(x, queries)
        x = x + self._residual(branch, self.gamma_1)
        return x + self._residual(self.mlp(self.norm2(x)), self.gamma_2)

    def _residual(self, branch: Tensor, gamma: Tensor | None) -> Tensor:
        out: Tensor = self.drop_path(branch if gamma is None else gamma * branch)
        return out


class Blocks(nn.ModuleList):
    """A stack of blocks, drop path rising linearly from 0 to its rate."""

    def __init__(
        self,
        depth: int,
        width: int,
        heads: int,
        mlp_ratio: float,
        *,
        drop_path: float,
        layer_scale: float,
        activation_checkpointing: bool,
    ) -> None:
        rates = [drop_path * i / max(1, depth - 1) for i in range(depth)]
        super().__init__(Block(width, heads, mlp_ratio, rate, layer_scale) for rate in rates)
        self.activation_checkpointing = activation_checkpointing

    def forward(
        self, x: Tensor, *, queries: Tensor | None = None, key_count: Tensor | None = None
    ) -> Tensor:
        """All blocks in order; `queries` (int32 [B, K]) applies to the last one."""
        for i, block in enumerate(self):
            asking = queries if i == len(self) - 1 else None
            if self.activation_checkpointing and torch.is_grad_enabled():
                x = checkpoint(block, x, queries=asking, key_count=key_count, use_reentrant=False)
            else:
                x = block(x, queries=asking, key_count=key_count)
        return x
