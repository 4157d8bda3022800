"""Hugging Face's layers, seen as this library's blocks.

Source: VideoMAELayer in transformers/models/videomae/modeling_videomae.py.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.videomae import modeling_videomae as modeling

from videomae_fast.interop.acceleration.code import why_unknown
from videomae_fast.interop.acceleration.plain import hooked, hooked_within
from videomae_fast.interop.acceleration.views import (
    AttentionView,
    BlockView,
    Kind,
    MlpView,
    Own,
    Projection,
    no_drop,
    why_no_attention,
    why_no_mlp,
    why_not_norms,
)

# What attention is computed by, where nobody has registered something else
_USUAL = [
    function
    for function in (modeling.eager_attention_forward, sdpa_attention_forward)
    if function.__module__.startswith("transformers.")
]


def _hugging_face_view(layer: Any) -> BlockView:
    out = layer.output
    if why_no_hugging_face_attention(layer.attention) is None:
        attn = layer.attention.attention
        query, key, value = attn.query, attn.key, attn.value
        # Its three projections become one matmul
        packed = Projection(torch.cat([query.weight, key.weight, value.weight]))
        attention: AttentionView | Own = AttentionView(
            layer,
            attn.num_attention_heads,
            query.bias,
            value.bias,
            packed,
            layer.attention.output.dense,
        )
    else:
        attention = Own(layer.attention)
    mlp: MlpView | Own
    if why_no_hugging_face_mlp(layer) is None:
        mlp = MlpView(layer.intermediate.dense, out.dense)
    else:
        # The layer's own output adds the residual, which the next LayerNorm does here
        mlp = Own(lambda x: out.dropout(out.dense(layer.intermediate(x))))
    norms = layer.layernorm_before, layer.layernorm_after
    return BlockView(norms[0], attention, norms[1], mlp, no_drop, None, None)


def why_not_hugging_face(layer: nn.Module) -> str | None:
    """Why this layer is left to its own code, or None."""
    why = why_unknown(layer, "VideoMAELayer")
    if why is not None:
        return why
    whole: Any = layer
    why = why_unknown(whole.output, "VideoMAEOutput")
    if why is not None or hooked(whole.output):
        return f"output: {why or 'a hook sits on it'}"
    return why_not_norms(whole.layernorm_before, whole.layernorm_after)


def why_no_hugging_face_attention(attention: Any) -> str | None:
    """Why this attention is left to its own code, or None."""
    why = why_unknown(attention, "VideoMAEAttention")
    if why is not None:
        return why
    inner, out = attention.attention, attention.output
    why = why_unknown(inner, "VideoMAESelfAttention") or why_unknown(out, "VideoMAESelfOutput")
    if why is not None:
        return why
    if hooked(attention) or hooked_within(attention):
        return "a hook sits on it"
    if inner.is_causal:
        return "it is causal"
    name = inner.config._attn_implementation
    if not _is_usual_attention(name):
        return f"its attention function, {name!r}, is not transformers' own"
    return why_no_attention(
        linears=(inner.query, inner.value, out.dense),
        unbiased=(inner.key,),
        biases=(inner.query.bias, inner.value.bias),
        dropouts=(inner.dropout_prob if inner.training else 0.0, out.dropout),
        head_dim=inner.attention_head_size,
        width=out.dense.out_features,
        heads=inner.num_attention_heads,
        scale=inner.scaling,
    )


def _is_usual_attention(name: str | None) -> bool:
    """Whether transformers' own function for attention serves under this name."""
    function = ALL_ATTENTION_FUNCTIONS.get(name, modeling.eager_attention_forward)
    return any(function is usual for usual in _USUAL)


def why_no_hugging_face_mlp(layer: Any) -> str | None:
    """Why this layer's MLP is left to its own code, or None."""
    why = why_unknown(layer.intermediate, "VideoMAEIntermediate")
    if why is not None:
        return why
    if hooked(layer.intermediate) or hooked_within(layer.intermediate):
        return "a hook sits on it"
    if hooked_within(layer.output):
        return "a hook sits on it"
    return why_no_mlp(
        (layer.intermediate.dense, layer.output.dense),
        layer.intermediate.intermediate_act_fn,
        layer.output.dropout,
    )


def _hugging_face_kept(layer: nn.Module) -> list[tuple[str, str]]:
    whole: Any = layer
    found = (
        ("attention", why_no_hugging_face_attention(whole.attention)),
        ("intermediate, output", why_no_hugging_face_mlp(whole)),
    )
    return [(part, why) for part, why in found if why is not None]


HUGGING_FACE = Kind(_hugging_face_view, why_not_hugging_face, _hugging_face_kept)
