"""Other code's transformer blocks, seen as this library's.

A view is made at each call from the modules as they are then, so replaced parameters, a changed
drop path rate and the like count at once. It is called with this library's own block.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from videomae_fast.models.transformer import (
    Attention,
    Block,
    Blocks,
    Branch,
    DropPath,
    Mlp,
    SharedTokens,
)
from videomae_fast.ops import token_gather


class Projection(NamedTuple):
    """What attention reads of the linear layer for queries, keys and values."""

    weight: Tensor


class AttentionView:
    """What :class:`videomae_fast.models.transformer.Attention` reads of a module."""

    __call__ = cast(Any, Attention.forward)
    _packed = cast(Any, Attention._packed)

    def __init__(
        self, heads: int, q_bias: Tensor, v_bias: Tensor, qkv: Any, proj: nn.Linear
    ) -> None:
        self.heads, self.q_bias, self.v_bias, self.qkv, self.proj = heads, q_bias, v_bias, qkv, proj


class MlpView:
    """What :class:`videomae_fast.models.transformer.Mlp` reads of a module."""

    __call__ = cast(Any, Mlp.forward)
    _forward = cast(Any, Mlp._forward)

    def __init__(self, fc1: nn.Linear, fc2: nn.Linear) -> None:
        self.fc1, self.fc2 = fc1, fc2


class DropPathView:
    """What :class:`videomae_fast.models.transformer.DropPath` reads of a module."""

    __call__ = cast(Any, DropPath.forward)

    def __init__(self, probability: float, training: bool) -> None:
        self.probability, self.training = probability, training


class BlockView:
    """What :class:`videomae_fast.models.transformer.Block` reads of a module."""

    __call__ = cast(Any, Block.forward)

    def __init__(
        self,
        norm1: nn.LayerNorm,
        attn: AttentionView,
        norm2: nn.LayerNorm,
        mlp: MlpView,
        drop_path: DropPathView,
        gamma_1: Tensor | None,
        gamma_2: Tensor | None,
    ) -> None:
        self.norm1, self.attn, self.norm2, self.mlp = norm1, attn, norm2, mlp
        self.drop_path, self.gamma_1, self.gamma_2 = drop_path, gamma_1, gamma_2


class BlocksView(list[BlockView]):
    """What :class:`videomae_fast.models.transformer.Blocks` reads of a stack."""

    __call__ = cast(Any, Blocks.forward)

    def __init__(self, views: Sequence[BlockView], activation_checkpointing: bool) -> None:
        super().__init__(views)
        self.activation_checkpointing = activation_checkpointing


def of_official(block: Any) -> BlockView:
    """A block with the official names. Source: Block in models/modeling_finetune.py, V1 and V2."""
    attn, mlp = block.attn, block.mlp
    return BlockView(
        block.norm1,
        AttentionView(attn.num_heads, attn.q_bias, attn.v_bias, attn.qkv, attn.proj),
        block.norm2,
        MlpView(mlp.fc1, mlp.fc2),
        DropPathView(getattr(block.drop_path, "drop_prob", None) or 0.0, block.drop_path.training),
        block.gamma_1,
        block.gamma_2,
    )


def of_hugging_face(layer: Any) -> BlockView:
    """A VideoMAELayer; its three projections become one matmul."""
    attn = layer.attention.attention
    query, key, value = attn.query, attn.key, attn.value
    packed = Projection(torch.cat([query.weight, key.weight, value.weight]))
    return BlockView(
        layer.layernorm_before,
        AttentionView(
            attn.num_attention_heads, query.bias, value.bias, packed, layer.attention.output.dense
        ),
        layer.layernorm_after,
        MlpView(layer.intermediate.dense, layer.output.dense),
        DropPathView(0.0, layer.training),
        None,
        None,
    )


def why_not_official(block: nn.Module) -> str | None:
    """Why this block can't be computed by the library's, or None."""
    defined = _forward_of(block)
    if defined != "Block":
        return f"its forward is that of {defined}, not of the official Block"
    whole: Any = block
    attn, mlp, path = whole.attn, whole.mlp, whole.drop_path
    if _forward_of(attn) != "Attention" or _forward_of(mlp) != "Mlp":
        return f"it has {_forward_of(attn)} and {_forward_of(mlp)}, not Attention and Mlp"
    if _forward_of(path) not in ("DropPath", "Identity"):
        return f"drop_path is a {_forward_of(path)}"
    if (whole.gamma_1 is None) != (whole.gamma_2 is None):
        return "only one of its branches has LayerScale"
    return _why_not(
        norms=(whole.norm1, whole.norm2),
        linears=(attn.proj, mlp.fc1, mlp.fc2),
        unbiased=(attn.qkv,),
        biases=(attn.q_bias, attn.v_bias),
        act=mlp.act,
        dropouts=(attn.attn_drop, attn.proj_drop, mlp.drop),
        head_dim=attn.qkv.out_features // 3 // attn.num_heads,
        width=attn.proj.out_features,
        heads=attn.num_heads,
        scale=attn.scale,
    )


def why_not_hugging_face(layer: nn.Module) -> str | None:
    """Why this layer can't be computed by the library's block, or None."""
    if _forward_of(layer) != "VideoMAELayer":
        return f"its forward is that of {_forward_of(layer)}, not of VideoMAELayer"
    whole: Any = layer
    attn, out = whole.attention.attention, whole.attention.output
    return _why_not(
        norms=(whole.layernorm_before, whole.layernorm_after),
        linears=(attn.query, attn.value, out.dense, whole.intermediate.dense, whole.output.dense),
        unbiased=(attn.key,),
        biases=(attn.query.bias, attn.value.bias),
        act=whole.intermediate.intermediate_act_fn,
        dropouts=(attn.dropout_prob, out.dropout, whole.output.dropout),
        head_dim=attn.attention_head_size,
        width=out.dense.out_features,
        heads=attn.num_attention_heads,
        scale=attn.scaling,
    )


def _why_not(
    *,
    norms: Sequence[nn.Module],
    linears: Sequence[nn.Module],
    unbiased: Sequence[nn.Module],
    biases: Sequence[Tensor | None],
    act: Any,
    dropouts: Sequence[Any],
    head_dim: int,
    width: int,
    heads: int,
    scale: Any,
) -> str | None:
    for norm in norms:
        if type(norm) is not nn.LayerNorm or norm.weight is None or norm.bias is None:
            return f"a norm is {type(norm).__name__}, not a LayerNorm with weight and bias"
    for module in (*linears, *unbiased):
        if type(module) is not nn.Linear:
            return f"a linear layer is a {type(module).__name__}"
    if any(module.bias is None for module in linears) or any(bias is None for bias in biases):
        return "attention or MLP lack a bias"
    if any(module.bias is not None for module in unbiased):
        return "keys have a bias"
    if not _is_exact_gelu(act):
        return f"the activation is {act}, not GELU in its exact form"
    if any(_dropout(dropout) > 0 for dropout in dropouts):
        return "dropout within attention or MLP"
    if head_dim * heads != width:
        return f"{heads} heads of {head_dim} are not the width {width}"
    if not isinstance(scale, float) or abs(scale * head_dim**0.5 - 1) > 1e-6:
        return f"attention is scaled by {scale}, not by 1 / sqrt({head_dim})"
    return None


def _forward_of(module: nn.Module) -> str:
    """The name of the class whose `forward` this module has, forms of this package aside."""
    for kind in type(module).__mro__:
        if "forward" in vars(kind) and not kind.__module__.startswith(__package__):
            return kind.__name__
    return type(module).__name__


def _is_exact_gelu(act: Any) -> bool:
    if isinstance(act, nn.GELU):
        return act.approximate == "none"
    # Hugging Face's module for "gelu" holds the function
    return type(act).__name__ == "GELUActivation" and getattr(act, "act", None) is F.gelu


def _dropout(dropout: Any) -> float:
    return float(dropout.p if isinstance(dropout, nn.Dropout) else dropout)


def hooked(module: nn.Module) -> bool:
    """Whether a hook of the user's sits on a module or within it."""
    return _has_hooks(module) or hooked_within(module)


def hooked_within(module: nn.Module) -> bool:
    """Whether a hook of the user's sits within a module; those on itself are not asked for."""
    return any(_has_hooks(part) or hooked_within(part) for part in module._modules.values() if part)


def _has_hooks(module: nn.Module) -> bool:
    return bool(
        module._forward_hooks
        or module._forward_pre_hooks
        or module._backward_hooks
        or module._backward_pre_hooks
    )


def run(
    blocks: Sequence[nn.Module],
    x: Tensor,
    view: Callable[[Any], BlockView],
    why_not: Callable[[nn.Module], str | None],
    *,
    activation_checkpointing: bool,
    one_by_one: bool = False,
    queries: Tensor | None = None,
    shared: SharedTokens | None = None,
) -> tuple[Tensor, Branch | None]:
    """A stack of blocks, each seen through `view`.

    Where a block has hooks, or is no longer one that `view` fits, or the caller says so, blocks are
    called one by one: hooks see what they saw before, and the fusion across blocks is left out.

    Args:
        x: [B, N, D].
        queries: int32 [B, K], the tokens whose output is wanted; None: all.
        shared: the last tokens of `x`, where these are rows of one table.

    Returns:
        The stream, [B, K or N, D], and what is still to be added to it, or None.
    """
    one_by_one = one_by_one or any(hooked(b) or why_not(b) is not None for b in blocks)
    if not one_by_one:
        views = BlocksView([view(block) for block in blocks], activation_checkpointing)
        stream, branch = views(x, queries=queries, shared=shared)
        return stream, branch
    for block in blocks:
        if activation_checkpointing and torch.is_grad_enabled():
            x = checkpoint(block, x, use_reentrant=False)
        else:
            x = block(x)
    return (x if queries is None else token_gather(x, queries)), None
