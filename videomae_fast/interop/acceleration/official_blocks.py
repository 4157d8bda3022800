"""Blocks with the official names, seen as this library's.

Source: Block, Attention, Mlp and DropPath in models/modeling_finetune.py of V2,
modeling_finetune.py of V1 and of the authors' action detection; vit_mae.py of mmaction2; vit*.py of
OpenTAD.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from videomae_fast.interop.acceleration.code import why_unknown
from videomae_fast.interop.acceleration.plain import hooked, hooked_within, is_plain
from videomae_fast.interop.acceleration.views import (
    AttentionView,
    BlockView,
    DropPathView,
    Kind,
    MlpView,
    Own,
    no_drop,
    why_no_attention,
    why_no_mlp,
    why_not_norms,
)

# Blocks of OpenTAD that recompute themselves; their forms see to that, and to an adapter
_OTHERS = ("CheckpointedBlock", "AdapterBlock")


def _official_view(block: Any) -> BlockView:
    attn, mlp, path = block.attn, block.mlp, block.drop_path
    gammas = getattr(block, "gamma_1", None), getattr(block, "gamma_2", None)
    fused = why_no_official_attention(attn) is None
    return BlockView(
        block.norm1,
        AttentionView(block, attn.num_heads, attn.q_bias, attn.v_bias, attn.qkv, attn.proj)
        if fused
        else Own(attn),
        block.norm2,
        MlpView(mlp.fc1, mlp.fc2) if why_no_official_mlp(mlp) is None else Own(mlp),
        no_drop
        if isinstance(path, nn.Identity)
        else DropPathView(path, block.norm1.weight, gammas[0]),
        *gammas,
    )


def why_not_official(block: nn.Module) -> str | None:
    """Why this block is left to its own code, or None. Its attention and MLP may be anything."""
    why = why_unknown(block, "Block")
    if why is not None and all(why_unknown(block, other) is not None for other in _OTHERS):
        return why
    whole: Any = block
    path = whole.drop_path
    if not is_plain(path, nn.Identity):
        why = why_unknown(path, "DropPath")
        if why is not None or hooked(path):
            return f"drop_path: {why or 'a hook sits on it'}"
    gammas = getattr(block, "gamma_1", None), getattr(block, "gamma_2", None)
    if (gammas[0] is None) != (gammas[1] is None):
        return "only one of its branches has LayerScale"
    return why_not_norms(whole.norm1, whole.norm2)


def why_no_official_attention(attn: Any) -> str | None:
    """Why this attention is left to its own code, or None."""
    why = why_unknown(attn, "Attention")
    if why is not None:
        if why_unknown(attn, "FusedAttention") is not None:
            return why
        # Its dropout takes no notice of the mode, and its scale is the usual one
        if attn.attn_drop.p > 0:
            return "dropout within"
    if hooked(attn) or hooked_within(attn):
        return "a hook sits on it"
    return why_no_attention(
        linears=(attn.proj,),
        unbiased=(attn.qkv,),
        biases=(getattr(attn, "q_bias", None), getattr(attn, "v_bias", None)),
        dropouts=(attn.attn_drop, attn.proj_drop),
        head_dim=attn.qkv.out_features // 3 // attn.num_heads,
        width=attn.proj.out_features,
        heads=attn.num_heads,
        scale=attn.scale if why is None else None,
    )


def why_no_official_mlp(mlp: Any) -> str | None:
    """Why this MLP is left to its own code, or None."""
    why = why_unknown(mlp, "Mlp")
    if why is not None:
        return why
    if hooked(mlp) or hooked_within(mlp):
        return "a hook sits on it"
    return why_no_mlp((mlp.fc1, mlp.fc2), mlp.act, mlp.drop)


def _official_kept(block: nn.Module) -> list[tuple[str, str]]:
    whole: Any = block
    found = ("attn", why_no_official_attention(whole.attn)), ("mlp", why_no_official_mlp(whole.mlp))
    return [(part, why) for part, why in found if why is not None]


OFFICIAL = Kind(_official_view, why_not_official, _official_kept)
