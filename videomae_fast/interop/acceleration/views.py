"""Other code's transformer blocks, seen as this library's.

A view is made at each call from the modules as they are then, so replaced parameters, modules, a
changed drop path rate and the like count at once. It is called with this library's own block. What
is not known within a block, attention or MLP, is called as the block itself would call it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from videomae_fast.interop.acceleration.plain import hooked, is_plain, transformed
from videomae_fast.models.transformer import Attention, Block, Blocks, Branch, Mlp, SharedTokens
from videomae_fast.ops import token_gather

DETERMINISTIC = "_videomae_fast_deterministic"
"""The attribute of blocks whose attention is to give the same bits every time."""


class Projection(NamedTuple):
    """What attention reads of the linear layer for queries, keys and values."""

    weight: Tensor


class Bias(NamedTuple):
    """What a block reads of a branch's last linear layer."""

    bias: Tensor | None


class AttentionView:
    """What :class:`videomae_fast.models.transformer.Attention` reads of a module."""

    fp8 = False
    __call__ = cast(Any, Attention.forward)
    _packed = cast(Any, Attention._packed)

    def __init__(
        self,
        block: nn.Module,
        heads: int,
        q_bias: Tensor,
        v_bias: Tensor,
        qkv: Any,
        proj: nn.Linear,
    ) -> None:
        self.heads, self.q_bias, self.v_bias, self.qkv, self.proj = heads, q_bias, v_bias, qkv, proj
        self.impl = attention_impl(block, proj.weight.device)


def attention_impl(block: nn.Module, device: torch.device) -> str:
    """The backend of a block's attention: where it is to be deterministic and torch is not, this
    library's kernels, which add up in a fixed order."""
    own = getattr(block, DETERMINISTIC, False) and device.type == "cuda"
    return "triton" if own and not torch.are_deterministic_algorithms_enabled() else "auto"


class MlpView:
    """What :class:`videomae_fast.models.transformer.Mlp` reads of a module."""

    recompute = fused = fp8 = packed = False
    __call__ = cast(Any, Mlp.forward)
    _forward = cast(Any, Mlp._forward)
    _second = cast(Any, Mlp._second)

    def __init__(self, fc1: nn.Linear, fc2: nn.Linear) -> None:
        self.fc1, self.fc2 = fc1, fc2


class Own:
    """Attention or an MLP that runs its own code, its last bias included."""

    proj = fc2 = Bias(None)

    def __init__(self, module: Callable[[Tensor], Tensor]) -> None:
        self.module = module

    def __call__(
        self, x: Tensor, *, queries: None = None, key_count: None = None, shared: None = None
    ) -> Tensor:
        """[B, N, D] to [B, N, D]: all tokens, since they may take notice of each other."""
        return self.module(x)


class DropPathView:
    """Draws a module's own factors: for [B, 1, 1] it draws what it draws for [B, N, D]."""

    def __init__(self, module: nn.Module, like: Tensor, scale: Tensor | None) -> None:
        self.module = module
        # The dtype of the branch's last linear layer, in which the module draws
        device = like.device.type
        lowered = torch.is_autocast_enabled(device)
        self.dtype = torch.get_autocast_dtype(device) if lowered else like.dtype
        if scale is not None:
            self.dtype = torch.promote_types(self.dtype, scale.dtype)

    def __call__(self, batch: Tensor) -> Tensor | None:
        """Each clip's factor, [B]; None where nothing drops."""
        if not self.module.training or not getattr(self.module, "drop_prob", None):
            return None
        ones = batch.new_ones((batch.shape[0], 1, 1), dtype=self.dtype)
        factor: Tensor = self.module(ones)
        return factor.view(-1).to(batch.dtype)


class BlockView:
    """What :class:`videomae_fast.models.transformer.Block` reads of a module."""

    recompute = sharded = fp8 = False
    __call__ = cast(Any, Block.forward)
    _forward, _add_norm = cast(Any, Block._forward), cast(Any, Block._add_norm)
    _recomputing = cast(Any, Block._recomputing)

    def __init__(
        self,
        norm1: nn.LayerNorm,
        attn: AttentionView | Own,
        norm2: nn.LayerNorm,
        mlp: MlpView | Own,
        drop_path: Callable[[Tensor], Tensor | None],
        gamma_1: Tensor | None,
        gamma_2: Tensor | None,
    ) -> None:
        self.norm1, self.attn, self.norm2, self.mlp = norm1, attn, norm2, mlp
        self.drop_path, self.gamma_1, self.gamma_2 = drop_path, gamma_1, gamma_2

    @property
    def fused(self) -> bool:
        """Whether nothing of it runs its own code."""
        return not isinstance(self.attn, Own) and not isinstance(self.mlp, Own)


class BlocksView(list[BlockView]):
    """What :class:`videomae_fast.models.transformer.Blocks` reads of a stack."""

    __call__ = cast(Any, Blocks.forward)

    def __init__(self, views: Sequence[BlockView], activation_checkpointing: bool) -> None:
        super().__init__(views)
        self.activation_checkpointing = activation_checkpointing
        self.draws = True  # what other code's blocks draw, nobody knows

    def factors(self, seeds: None, dtype: torch.dtype) -> list[None]:
        """None: other code's blocks draw for themselves."""
        return [None] * len(self)


class Kind(NamedTuple):
    """How blocks of one code base are looked at.

    Attributes:
        view: a block as this library's; only where `why_not` has nothing to say.
        why_not: why a block is left to its own code, or None.
        kept: (part, why) of what within a block is left to its own code.
    """

    view: Callable[[Any], BlockView]
    why_not: Callable[[nn.Module], str | None]
    kept: Callable[[nn.Module], list[tuple[str, str]]]


def no_drop(_: Tensor) -> None:
    """The factors of a block without drop path."""
    return


def why_not_norms(*norms: nn.Module, like: Any = None) -> str | None:
    """Why a block with these LayerNorms is left to its own code, or None.

    Args:
        like: a module whose weight has the dtype that theirs has to have, or None.
    """
    for norm in norms:
        if not is_plain(norm, nn.LayerNorm):
            return f"a norm is {type(norm).__name__}{', hooked' if hooked(norm) else ''}"
        whole: Any = norm
        if whole.weight is None or whole.bias is None:
            return "a norm lacks weight or bias"
        if whole.weight.ndim != 1 or tuple(whole.normalized_shape) != tuple(whole.weight.shape):
            return f"a norm is over {whole.normalized_shape}"
        other = norms[0] if like is None else like
        if whole.weight.dtype != other.weight.dtype:
            return f"a norm is in {whole.weight.dtype}, other parts in {other.weight.dtype}"
    return None


def why_no_attention(
    *,
    linears: Sequence[nn.Module],
    unbiased: Sequence[nn.Module],
    biases: Sequence[Tensor | None],
    dropouts: Sequence[Any],
    head_dim: int,
    width: int,
    heads: int,
    scale: Any,
) -> str | None:
    """Why attention of these parts is left to its own code, or None; a `scale` of None is usual."""
    why = _why_no_linears((*linears, *unbiased))
    if why is not None:
        return why
    if any(module.bias is None for module in linears) or any(bias is None for bias in biases):
        return "it lacks a bias"
    if any(module.bias is not None for module in unbiased):
        return "keys have a bias"
    if any(drops(dropout) for dropout in dropouts):
        return "dropout within"
    if head_dim * heads != width:
        return f"{heads} heads of {head_dim} are not the width {width}"
    if scale is None:
        return None
    if not isinstance(scale, float) or abs(scale * head_dim**0.5 - 1) > 1e-6:
        return f"it is scaled by {scale}, not by 1 / sqrt({head_dim})"
    return None


def why_no_mlp(linears: Sequence[nn.Module], act: Any, dropout: Any) -> str | None:
    """Why an MLP of these parts is left to its own code, or None."""
    why = _why_no_linears(linears)
    if why is not None:
        return why
    if any(module.bias is None for module in linears):
        return "it lacks a bias"
    if not _is_exact_gelu(act):
        return f"the activation is {act}, not GELU in its exact form"
    return "dropout within" if drops(dropout) else None


def _why_no_linears(linears: Sequence[nn.Module]) -> str | None:
    for module in linears:
        if not is_plain(module, nn.Linear):
            return f"a linear layer is a {type(module).__name__}"
    return None


def _is_exact_gelu(act: Any) -> bool:
    if is_plain(act, nn.GELU):
        exact: bool = act.approximate == "none"
        return exact
    # Hugging Face's module for "gelu" holds the function
    return type(act).__name__ == "GELUActivation" and getattr(act, "act", None) is F.gelu


def drops(dropout: Any) -> bool:
    """Whether a dropout, or a probability, drops anything now."""
    if isinstance(dropout, nn.Module):
        if is_plain(dropout, nn.Dropout):
            whole: Any = dropout
            active: bool = whole.p > 0 and whole.training
            return active
        return type(dropout) is not nn.Identity
    return bool(dropout > 0)


def run(
    blocks: Sequence[nn.Module],
    x: Tensor,
    kind: Kind,
    *,
    activation_checkpointing: bool,
    one_by_one: bool = False,
    queries: Tensor | None = None,
    shared: SharedTokens | None = None,
) -> tuple[Tensor, Branch | None]:
    """A stack of blocks, each seen through `kind`.

    Where a block has hooks, or is not wholly one that `kind` knows, or the caller says so, blocks
    are called one by one, on all tokens: hooks and unknown parts see what they saw before, and the
    fusion across blocks is left out.

    Args:
        x: [B, N, D].
        queries: int32 [B, K], the tokens whose output is wanted; None: all.
        shared: the last tokens of `x`, where these are rows of one table.

    Returns:
        The stream, [B, K or N, D], and what is still to be added to it, or None.
    """
    if not (one_by_one or not blocks or transformed() or any(map(hooked, blocks))) and all(
        kind.why_not(block) is None for block in blocks
    ):
        views = [kind.view(block) for block in blocks]
        if all(view.fused for view in views):
            stream, branch = BlocksView(views, activation_checkpointing)(
                x, queries=queries, shared=shared
            )
            return stream, branch
    for block in blocks:
        if activation_checkpointing and torch.is_grad_enabled():
            x = checkpoint(block, x, use_reentrant=False)
        else:
            x = block(x)
    return (x if queries is None else token_gather(x, queries)), None
