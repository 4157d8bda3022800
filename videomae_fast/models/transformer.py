"""The transformer of VideoMAE: pre-norm, joint space-time attention, GELU MLP.

A branch (attention or MLP) ends in a matmul whose bias is not added yet: the next LayerNorm adds
bias, LayerScale, drop path and residual in its own pass over the stream.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from videomae_fast.models.drop_path import DropPath, branch_keys
from videomae_fast.models.recomputing import keeping_matmuls, recomputing
from videomae_fast.ops import (
    Quantized,
    add_layer_norm,
    add_layer_norm_fp8,
    append_rows,
    bias_gelu,
    bias_gelu_fp8,
    fp8_linear,
    gelu_mlp,
    linear,
    packed_attention,
    packed_bias,
    token_gather,
)
from videomae_fast.ops.linear import packed_linear_gelu


class Branch(NamedTuple):
    """A branch's output that the stream still lacks: ``factor * scale * (delta + bias)``.

    Attributes:
        delta: [B, N, D].
        bias: [D], or None.
        scale: [D], LayerScale's, or None.
        factor: [B], drop path's, or None.
    """

    delta: Tensor
    bias: Tensor | None
    scale: Tensor | None
    factor: Tensor | None


class SharedTokens(NamedTuple):
    """Tokens at the end of every clip's sequence that are rows of one table.

    What a layer makes of a single token is then made once per row, not once per clip and token.

    Attributes:
        rows: [N, D].
        positions: int32 [B, M], which rows are each clip's; they may repeat.
    """

    rows: Tensor
    positions: Tensor


def add_norm(x: Tensor, branch: Branch | None, norm: nn.LayerNorm) -> tuple[Tensor, Tensor]:
    """The stream with the branch added, and before it its LayerNorm: (normalised, stream)."""
    if branch is None:
        return norm(x).to(x.dtype), x
    return add_layer_norm(
        x,
        branch.delta,
        norm.weight,
        norm.bias,
        delta_bias=branch.bias,
        scale=branch.scale,
        factor=branch.factor,
        eps=norm.eps,
    )


def add_norm_fp8(
    x: Tensor, branch: Branch | None, norm: nn.LayerNorm
) -> tuple[Tensor, Tensor, Quantized | None]:
    """:func:`add_norm`, and what its first result is in e4m3, where the pass that adds makes it."""
    if branch is None:
        return *add_norm(x, branch, norm), None
    return add_layer_norm_fp8(
        x,
        branch.delta,
        norm.weight,
        norm.bias,
        delta_bias=branch.bias,
        scale=branch.scale,
        factor=branch.factor,
        eps=norm.eps,
    )


def norm_again(stream: Tensor, norm: nn.LayerNorm, *, fp8: bool) -> Tensor:
    """The LayerNorm of a sum once more: by the same op, with nothing added."""
    nothing = stream.new_zeros(stream.shape[0], dtype=torch.float32)
    op = add_layer_norm_fp8 if fp8 else add_layer_norm
    return op(stream, stream, norm.weight, norm.bias, factor=nothing, eps=norm.eps)[0]


def add(x: Tensor, branch: Branch) -> Tensor:
    """The stream with the branch added."""
    delta = branch.delta if branch.bias is None else branch.delta + branch.bias
    if branch.scale is not None:
        delta = delta * branch.scale
    if branch.factor is not None:
        delta = delta * branch.factor[:, None, None]
    return (x + delta).to(x.dtype)


class Attention(nn.Module):
    """Multi-head attention with a bias on queries and values and none on keys.

    Attributes:
        impl: the backend of :func:`videomae_fast.ops.attention`.
        fp8: queries, keys and values come by :func:`videomae_fast.ops.fp8_linear`.
    """

    impl = "auto"
    fp8 = False

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q_bias = nn.Parameter(torch.zeros(width))
        self.v_bias = nn.Parameter(torch.zeros(width))
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.proj = nn.Linear(width, width)

    def forward(
        self,
        x: Tensor,
        *,
        queries: Tensor | None = None,
        key_count: Tensor | None = None,
        shared: SharedTokens | None = None,
        quantized: Quantized | None = None,
    ) -> Tensor:
        """
        Args:
            x: [B, N, D], normalised.
            queries: int32 [B, K], the tokens that ask; None: all.
            key_count: int32 [B], how many of the first tokens take part as keys; None: all.
            shared: tokens to append to those of `x`, normalised too; `queries` and `key_count`
                count them in.
            quantized: `x` in e4m3, where something made that already.

        Returns:
            [B, K or N (with M shared ones: N + M), D], `proj.bias` not yet added.
        """
        width = x.shape[-1]
        heads = (self.heads, width // self.heads)
        asking = None
        if shared is None and queries is not None:
            product = fp8_linear if self.fp8 else linear
            asked = token_gather(x, queries)
            asking = product(asked, self.qkv.weight[:width], self.q_bias.detach())
            packed = self._packed(x, quantized, keys_only=True)
        else:
            packed = self._packed(x, quantized)
            if shared is not None:
                packed = append_rows(packed, self._packed(shared.rows), shared.positions)
            if queries is not None:
                asking, packed = token_gather(packed[..., :width], queries), packed[..., width:]
        out = packed_attention(
            packed.reshape(*packed.shape[:2], -1, *heads),
            query=None if asking is None else asking.reshape(*asking.shape[:2], *heads),
            q_bias=self.q_bias,
            v_bias=self.v_bias,
            key_count=key_count,
            impl=self.impl,
        )
        return linear(out.flatten(2), self.proj.weight)

    def _packed(
        self, x: Tensor, quantized: Quantized | None = None, *, keys_only: bool = False
    ) -> Tensor:
        """Queries, keys and values of tokens [..., D]: [..., 3 D]; without queries [..., 2 D].

        The biases are in it; their gradients come with attention's.
        """
        device = x.device.type
        lowered = torch.is_autocast_enabled(device)
        dtype = torch.get_autocast_dtype(device) if lowered else self.v_bias.dtype
        bias = packed_bias(None if keys_only else self.q_bias, self.v_bias, dtype)
        # Even a slice that is the whole has a backward, which copies
        weight = self.qkv.weight[x.shape[-1] :] if keys_only else self.qkv.weight
        if self.fp8:
            return fp8_linear(x, weight, bias, quantized=quantized)
        return linear(x, weight, bias)


class Mlp(nn.Module):
    """Two matmuls with bias and GELU between them.

    ViT-g's decoder is 2234 wide here, no multiple of 8, which costs tensor cores their aligned
    loads. On a GPU the weights are zero-padded for the matmuls: gelu(0) = 0 meets zero columns, so
    nothing changes, and the padding's gradient is cut off with it.

    Attributes:
        recompute: the backward pass makes GELU's output again instead of keeping it.
        fused: bias, GELU and its slope in the matmuls' epilogues (:func:`gelu_mlp`), by this
            library's matmuls; not measured, so off. Does not go with `recompute`, nor with `fp8`.
        fp8: both matmuls are :func:`videomae_fast.ops.fp8_linear`.
        packed: its weights are packed ones (:mod:`videomae_fast.models.packed_weights`).
    """

    recompute = False
    fused = False
    fp8 = False
    packed = False

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: Tensor, *, quantized: Quantized | None = None) -> Tensor:
        """[B, N, D] to [B, N, D], `fc2.bias` not yet added.

        quantized: `x` in e4m3, where something made that already.
        """
        return self._forward(x, multiple=8 if x.is_cuda else 1, quantized=quantized)

    def _forward(self, x: Tensor, multiple: int, quantized: Quantized | None = None) -> Tensor:
        first: Tensor = self.fc1.weight
        bias: Tensor = self.fc1.bias
        second: Tensor = self.fc2.weight
        if self.packed:
            return linear(packed_linear_gelu(x, first, bias), second)
        missing = -bias.shape[0] % multiple
        if missing:
            first = F.pad(first, (0, 0, 0, missing))
            bias, second = F.pad(bias, (0, missing)), F.pad(second, (0, missing))
        if self.fused:
            if self.recompute or self.fp8:
                raise ValueError("an MLP is either fused or recomputed, or in fp8")
            return gelu_mlp(x, first, bias, second)
        if self.fp8:
            hidden = fp8_linear(x, first, quantized=quantized)
            active, rows = bias_gelu_fp8(hidden, bias)
        else:
            hidden, rows = linear(x, first), None
            active = bias_gelu(hidden, bias)
        if not self.recompute:
            return self._second(active, second, rows)
        kept = hidden.detach()
        again = _active_fp8 if self.fp8 else bias_gelu
        with recomputing(active, lambda: again(kept, bias)):
            return self._second(active, second, rows)

    def _second(self, active: Tensor, weight: Tensor, quantized: Quantized | None) -> Tensor:
        if self.fp8:
            return fp8_linear(active, weight, quantized=quantized)
        return linear(active, weight)


def _active_fp8(hidden: Tensor, bias: Tensor) -> Tensor:
    return bias_gelu_fp8(hidden, bias)[0]


class Block(nn.Module):
    """x + attention(norm(x)), then x + MLP(norm(x)).

    Attributes:
        recompute: the backward pass makes normalised tokens again instead of keeping them, where
            they come with an addition.
        fp8: normalised tokens come in e4m3 too, for its attention and MLP.
        sharded: its parameters are whole only while it works, so what it hands on are copies of
            them and no parameters.

    Source: Block in models/modeling_finetune.py of the official V2 code.
    """

    recompute = False
    fp8 = False
    sharded = False

    def __init__(
        self,
        width: int,
        heads: int,
        hidden: int,
        *,
        drop_path: float,
        layer_scale: float,
        norm_eps: float,
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=norm_eps)
        self.attn = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width, eps=norm_eps)
        self.mlp = Mlp(width, hidden)
        self.drop_path = DropPath(drop_path)
        self.gamma_1: nn.Parameter | None = None
        self.gamma_2: nn.Parameter | None = None
        if layer_scale > 0:
            self.gamma_1 = nn.Parameter(layer_scale * torch.ones(width))
            self.gamma_2 = nn.Parameter(layer_scale * torch.ones(width))

    def forward(
        self,
        x: Tensor,
        branch: Branch | None = None,
        *,
        queries: Tensor | None = None,
        key_count: Tensor | None = None,
        shared: SharedTokens | None = None,
        factors: Tensor | None = None,
    ) -> tuple[Tensor, Branch]:
        """
        Args:
            x: [B, N, D], the stream.
            branch: what the block before has not yet added to it.
            queries: int32 [B, K], the tokens whose output is wanted; None: all. The others serve
                as keys and values only.
            key_count: int32 [B], how many of the first tokens take part as keys; None: all.
            shared: the last tokens of `x`, where nothing is to be added to it.
            factors: [2, B], drop path's of both branches; None: it draws them itself, or none.

        Returns:
            The stream, [B, K or N, D], and what is still to be added to it.
        """
        given: dict[str, Any] = {
            "queries": queries, "key_count": key_count, "shared": shared, "factors": factors,
        }  # fmt: skip
        if self.recompute and torch.compiler.is_compiling() and torch.is_grad_enabled():
            made: tuple[Tensor, Branch] = keeping_matmuls(self._forward, x, branch, **given)
            return made
        return self._forward(x, branch, **given)

    def _forward(
        self,
        x: Tensor,
        branch: Branch | None,
        *,
        queries: Tensor | None,
        key_count: Tensor | None,
        shared: SharedTokens | None,
        factors: Tensor | None,
    ) -> tuple[Tensor, Branch]:
        if shared is None:
            normal, x, rows = self._add_norm(x, branch, self.norm1)
        else:
            assert branch is None
            rows = {}
            normal, _ = add_norm(x[:, : x.shape[1] - shared.positions.shape[1]], None, self.norm1)
            shared = shared._replace(rows=add_norm(shared.rows, None, self.norm1)[0])
        with self._recomputing(normal, x, branch, self.norm1):
            delta = self.attn(normal, queries=queries, key_count=key_count, shared=shared, **rows)
        if queries is not None:
            x = token_gather(x, queries)
        first, second = (self.drop_path(x), None) if factors is None else factors.unbind(0)
        branch = Branch(delta, self.attn.proj.bias, self.gamma_1, first)
        normal, x, rows = self._add_norm(x, branch, self.norm2)
        with self._recomputing(normal, x, branch, self.norm2):
            delta = self.mlp(normal, **rows)
        second = self.drop_path(x) if factors is None else second
        bias, scale = self.mlp.fc2.bias, self.gamma_2
        if self.sharded:
            return x, Branch(delta, bias.clone(), scale if scale is None else scale.clone(), second)
        return x, Branch(delta, bias, scale, second)

    def _add_norm(
        self, x: Tensor, branch: Branch | None, norm: nn.LayerNorm
    ) -> tuple[Tensor, Tensor, dict[str, Quantized | None]]:
        """:func:`add_norm`, and what its first result's reader is told besides."""
        if not self.fp8:
            return *add_norm(x, branch, norm), {}
        normal, x, quantized = add_norm_fp8(x, branch, norm)
        return normal, x, {"quantized": quantized}

    def _recomputing(
        self, normal: Tensor, stream: Tensor, branch: Branch | None, norm: nn.LayerNorm
    ) -> AbstractContextManager[object]:
        """For what reads the LayerNorm of a stream that a branch was added to."""
        if not self.recompute or branch is None:
            return nullcontext()
        kept = stream.detach()
        return recomputing(normal, lambda: norm_again(kept, norm, fp8=self.fp8))


def set_sharded(model: nn.Module, sharded: bool = True) -> None:
    """Lets all blocks of a model hand on copies of parameters, or the parameters themselves."""
    for module in model.modules():
        if isinstance(module, Block):
            module.sharded = sharded


def set_recompute(model: nn.Module, recompute: bool) -> None:
    """Lets all blocks of a model make normalised tokens and GELU's output again, or keep them."""
    for module in model.modules():
        if isinstance(module, Block | Mlp):
            module.recompute = recompute


def set_fused_mlp(model: nn.Module, fused: bool) -> None:
    """Lets all MLPs of a model have GELU in their matmuls' epilogues, or beside them."""
    for module in model.modules():
        if isinstance(module, Mlp):
            module.fused = fused


class Blocks(nn.ModuleList):
    """A stack of blocks, drop path rising linearly from 0 to its rate.

    Args:
        number: of the first block among all of the model, which drop path is drawn for.
    """

    def __init__(
        self,
        depth: int,
        width: int,
        heads: int,
        hidden: int,
        *,
        drop_path: float,
        layer_scale: float,
        norm_eps: float,
        activation_checkpointing: bool,
        number: int = 0,
    ) -> None:
        rates = [drop_path * i / max(1, depth - 1) for i in range(depth)]
        super().__init__(
            Block(width, heads, hidden, drop_path=rate, layer_scale=layer_scale, norm_eps=norm_eps)
            for rate in rates
        )
        self.activation_checkpointing = activation_checkpointing
        self.number = number

    @property
    def draws(self) -> bool:
        """Whether a pass without clips' seeds draws random numbers, as drop path does."""
        rates = [module.probability for module in self.modules() if isinstance(module, DropPath)]
        return self.training and any(rate > 0 for rate in rates)

    def factors(self, seeds: Tensor | None, dtype: torch.dtype) -> list[Tensor | None]:
        """Drop path's factors of each block, [2, B], from the clips' seeds: see :class:`Block`."""
        if seeds is None or not self.draws:
            return [None] * len(self)
        keys = branch_keys(seeds, self.number, len(self))
        paths: list[Any] = [block.drop_path for block in self]
        return [path.factors(own, dtype) for path, own in zip(paths, keys, strict=True)]

    def forward(
        self,
        x: Tensor,
        branch: Branch | None = None,
        *,
        queries: Tensor | None = None,
        key_count: Tensor | None = None,
        shared: SharedTokens | None = None,
        seeds: Tensor | None = None,
        after: Callable[[int, Tensor, Branch], None] | None = None,
    ) -> tuple[Tensor, Branch]:
        """All blocks in order.

        Args:
            x: [B, N, D].
            branch: what is still to be added to it.
            queries: of the last block; see :class:`Block`.
            key_count: of every block.
            shared: the last tokens of `x`; of the first block, after which they differ by clip.
            seeds: int64 [B], of the clips, which drop path then depends on alone; None: it draws
                from torch's generator.
            after: called after each block with the number of blocks done, the stream, and what is
                still to be added to it.

        Returns:
            The stream and what is still to be added to it: see :func:`add_norm` and :func:`add`.
        """
        factors = self.factors(seeds, x.dtype)
        for i, block in enumerate(self):
            options: dict[str, Any] = {
                "queries": queries if i == len(self) - 1 else None,
                "key_count": key_count,
                "shared": shared if i == 0 else None,
                "factors": factors[i],
            }
            if self.activation_checkpointing and torch.is_grad_enabled():
                x, branch = checkpoint(
                    block,
                    x,
                    branch,
                    use_reentrant=False,
                    # Reading the generator's state waits for the host, and breaks a recording
                    preserve_rng_state=seeds is None and self.draws,
                    **options,
                )
            else:
                x, branch = block(x, branch, **options)
            if after is not None:
                after(i + 1, x, branch)
        assert branch is not None
        return x, branch
