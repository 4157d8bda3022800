"""Hugging Face's names of the tensors, and the official ones: maps both ways.

Query, key and value are one packed matrix in the official layout and three in Hugging Face's. Their
biases are spelt two ways: ``attention.q_bias`` in every released checkpoint and in what
``save_pretrained`` writes, ``attention.query.bias`` in the modules of newer releases. Which release
reads which:

=======================  ============  ================
transformers             ``q_bias``    ``query.bias``
=======================  ============  ================
4, and 5.0 to 5.5.0      yes           no
5.5.1 to 5.17            no, silently  yes
from 5.18                yes           yes
=======================  ============  ================

"No, silently" means that the biases are zero. From 5.5.1 to 5.17 keys have one too, which changes
nothing: it is left out when such weights are read, and begins as zero there.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final, Literal

import torch
from torch import Tensor

from videomae_fast.errors import WeightsError
from videomae_fast.interop.weights.state_dicts import named

BiasNames = Literal["q_bias", "query.bias"]

_PLAIN: Final = {
    "encoder.patch_embed.proj": "videomae.embeddings.patch_embeddings.projection",
    "encoder.norm": "videomae.layernorm",
    "encoder_to_decoder": "encoder_to_decoder",
    "decoder.norm": "decoder.norm",
    "decoder.head": "decoder.head",
    "fc_norm": "fc_norm",
    "head": "classifier",
}
_BLOCK: Final = {
    "norm1": "layernorm_before",
    "norm2": "layernorm_after",
    "attn.proj": "attention.output.dense",
    "mlp.fc1": "intermediate.dense",
    "mlp.fc2": "output.dense",
}
_STACKS: Final = {
    "encoder.blocks": "videomae.encoder.layer",
    "decoder.blocks": "decoder.decoder_layers",
}
_PARTS: Final = ("query", "key", "value")
_BIASES: Final[dict[str, dict[BiasNames, str]]] = {
    "q_bias": {"query.bias": "query.bias", "q_bias": "q_bias"},
    "v_bias": {"query.bias": "value.bias", "q_bias": "v_bias"},
}
_ATTENTION: Final = "attention.attention."


def to_hugging_face_keys(
    state: Mapping[str, Tensor], *, biases: BiasNames = "q_bias"
) -> dict[str, Tensor]:
    """Official names to Hugging Face's; packed matrices become three views.

    Args:
        state: of a masked autoencoder (``encoder.…``) or of a classifier (``blocks.…``).
        biases: which spelling the q and v biases get.

    Raises:
        WeightsError: tensors that have no counterpart.
    """
    found: dict[str, Tensor] = {}
    strange = []
    for name, value in state.items():
        stack, rest = _block(_below_encoder(name), _STACKS)
        stem, _, kind = rest.rpartition(".")
        if not stack and name == "mask_token":
            found[name] = value
        elif not stack and (plain := _PLAIN.get(_below_encoder(stem))):
            found[f"{plain}.{kind}"] = value
        elif stack and rest == "attn.qkv.weight":
            for part, rows in zip(_PARTS, value.chunk(3), strict=True):
                found[f"{stack}{_ATTENTION}{part}.weight"] = rows
        elif stack and stem == "attn" and kind in _BIASES:
            found[f"{stack}{_ATTENTION}{_BIASES[kind][biases]}"] = value
        elif stack and stem in _BLOCK:
            found[f"{stack}{_BLOCK[stem]}.{kind}"] = value
        else:
            strange.append(name)
    if strange:
        raise WeightsError(f"no counterpart in Hugging Face's model: {named(strange)}")
    return found


def from_hugging_face_keys(
    state: Mapping[str, Tensor], *, classifier: bool = False
) -> dict[str, Tensor]:
    """Hugging Face's names, in either spelling, to official ones; three matrices are packed.

    Args:
        state: without position tables.
        classifier: the official names of a classifier, without ``encoder.``.

    Raises:
        WeightsError: tensors that have no counterpart, stand there twice, or are missing.
    """
    stacks = {theirs: ours for ours, theirs in _STACKS.items()}
    plain = {theirs: ours for ours, theirs in _PLAIN.items()}
    blocks = {theirs: ours for ours, theirs in _BLOCK.items()}
    biases = {s: ours for ours, both in _BIASES.items() for s in both.values()}
    found: dict[str, Tensor] = {}
    packed: dict[str, dict[str, Tensor]] = {}
    strange = []
    for name, value in state.items():
        stack, rest = _block(name, stacks)
        stem, _, kind = rest.rpartition(".")
        inner = rest.removeprefix(_ATTENTION)
        if not stack and name == "mask_token":
            official = name
        elif not stack and stem in plain:
            official = f"{plain[stem]}.{kind}"
        elif stack and inner != rest and inner in biases:
            official = f"{stack}attn.{biases[inner]}"
        elif stack and inner in [f"{part}.weight" for part in _PARTS]:
            official = f"{stack}attn.qkv.weight"
            packed.setdefault(official, {})[inner.removesuffix(".weight")] = value
            found.setdefault(official, value)  # keeps the place; replaced below
            continue
        elif stack and stem in blocks:
            official = f"{stack}{blocks[stem]}.{kind}"
        else:
            strange.append(name)
            continue
        if official in found:
            raise WeightsError(f"two entries become {official!r}, one is {name!r}")
        found[official] = value
    if strange:
        raise WeightsError(f"no counterpart in the official layout: {named(strange)}")
    for official, parts in packed.items():
        missing = [part for part in _PARTS if part not in parts]
        if missing:
            raise WeightsError(f"{' and '.join(missing)} of {official} missing")
        try:
            found[official] = torch.cat([parts[part] for part in _PARTS])
        except RuntimeError as error:
            raise WeightsError(f"query, key and value don't fit in {official}: {error}") from error
    if classifier:
        return {name.removeprefix("encoder."): value for name, value in found.items()}
    return found


def _below_encoder(name: str) -> str:
    """A classifier's name as the masked autoencoder's."""
    if name.startswith(("blocks.", "patch_embed.")):
        return f"encoder.{name}"
    return name


def _block(name: str, stacks: Mapping[str, str]) -> tuple[str, str]:
    """A block's prefix in the other layout and the rest of the name; ("", name) outside blocks."""
    matched = re.fullmatch(r"(.+?)\.(\d+)\.(.+)", name)
    if matched is None or matched[1] not in stacks:
        return "", name
    return f"{stacks[matched[1]]}.{matched[2]}.", matched[3]
