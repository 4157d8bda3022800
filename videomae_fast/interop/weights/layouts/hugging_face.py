"""Hugging Face's names of the tensors.

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

from collections.abc import Mapping
from typing import Final, Literal

import torch
from torch import Tensor

from videomae_fast.errors import WeightsError
from videomae_fast.interop.weights.layouts.names import Names
from videomae_fast.interop.weights.model_weights import Kind

BiasNames = Literal["q_bias", "query.bias"]

_PACKED: Final = "attn.qkv.weight"
_PARTS: Final = ("query", "key", "value")
_MODULES: Final = {
    "mask_token": "mask_token",
    "encoder.patch_embed.proj.": "videomae.embeddings.patch_embeddings.projection.",
    "encoder.norm.": "videomae.layernorm.",
    "encoder_to_decoder.": "encoder_to_decoder.",
    "decoder.norm.": "decoder.norm.",
    "decoder.head.": "decoder.head.",
    "fc_norm.": "fc_norm.",
    "head.": "classifier.",
}
_STACKS: Final = {
    "encoder.blocks.#.": "videomae.encoder.layer.#.",
    "decoder.blocks.#.": "decoder.decoder_layers.#.",
}
_BLOCK: Final = {
    "norm1.": "layernorm_before.",
    "norm2.": "layernorm_after.",
    "attn.proj.": "attention.output.dense.",
    "mlp.fc1.": "intermediate.dense.",
    "mlp.fc2.": "output.dense.",
    **{f"attn.{part}.weight": f"attention.attention.{part}.weight" for part in _PARTS},
}
_BIASES: Final[dict[BiasNames, dict[str, str]]] = {
    "q_bias": {
        "attn.q_bias": "attention.attention.q_bias",
        "attn.v_bias": "attention.attention.v_bias",
    },
    "query.bias": {
        "attn.q_bias": "attention.attention.query.bias",
        "attn.v_bias": "attention.attention.value.bias",
    },
}


def _in_stacks(block: Mapping[str, str]) -> dict[str, str]:
    return {
        outer + ours: stack + theirs
        for outer, stack in _STACKS.items()
        for ours, theirs in block.items()
    }


_ALL_BIASES: Final = {
    theirs: ours for biases in _BIASES.values() for ours, theirs in _in_stacks(biases).items()
}
_NAMES: Final = {
    spelling: Names("Hugging Face's", {**_MODULES, **_in_stacks({**_BLOCK, **biases})}, _ALL_BIASES)
    for spelling, biases in _BIASES.items()
}


def to_hugging_face_keys(
    state: Mapping[str, Tensor], *, biases: BiasNames = "q_bias"
) -> dict[str, Tensor]:
    """Official names to Hugging Face's; packed matrices become three views.

    Args:
        state: of a masked autoencoder (``encoder.…``) or of a classifier (``blocks.…``).
        biases: which spelling the q and v biases get.

    Returns:
        The tensors by Hugging Face's names, ``qkv.weight`` [3 width, width] as three of
        [width, width] that share its memory.

    Raises:
        WeightsError: tensors that have no counterpart.
    """
    below = ("blocks.", "patch_embed.")
    whole = {f"encoder.{k}" if k.startswith(below) else k: value for k, value in state.items()}
    return _NAMES[biases].theirs(unpack_attention(whole))


def from_hugging_face_keys(
    state: Mapping[str, Tensor], *, classifier: bool = False
) -> dict[str, Tensor]:
    """Hugging Face's names, in either spelling, to official ones; three matrices are packed.

    Args:
        state: without position tables.
        classifier: give the official names of a classifier, without ``encoder.``.

    Returns:
        The tensors by official names; packed ones have new memory.

    Raises:
        WeightsError: tensors that have no counterpart, stand there twice, or are missing.
    """
    found = pack_attention(_NAMES["q_bias"].ours(state))
    if classifier:
        return {name.removeprefix("encoder."): value for name, value in found.items()}
    return found


def is_hugging_face(state: Mapping[str, Tensor]) -> bool:
    """Whether these are Hugging Face's names, with or without ``videomae.``."""
    return any(key.removeprefix("videomae.").startswith("embeddings.") for key in state)


def kind_of_hugging_face(state: Mapping[str, Tensor]) -> Kind:
    """Which of their models has tensors of these names."""
    if any(key.startswith("classifier.") for key in state):
        return "classifier"
    if any(key.startswith("decoder.") or key == "mask_token" for key in state):
        return "pre-training"
    return "encoder"


def with_prefix(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Names of a bare VideoMAEModel get the prefix that they have in the other two models.

    Raises:
        WeightsError: a name is there with and without it.
    """
    bare = ("embeddings.", "encoder.layer.", "layernorm.")
    found: dict[str, Tensor] = {}
    for name, value in state.items():
        new = f"videomae.{name}" if name.startswith(bare) else name
        if new in found:
            raise WeightsError(f"two entries become {new!r}, one is {name!r}")
        found[new] = value
    return found


def unpack_attention(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Query, key and value apart, as ``attn.query.weight``, ``attn.key.weight``, ``attn.value.…``.

    Args:
        state: with ``attn.qkv.weight`` [3 width, width] in each block.

    Returns:
        The state dict with three views [width, width] in the place of each.
    """
    found: dict[str, Tensor] = {}
    for name, value in state.items():
        if name.endswith(_PACKED):
            outer = name.removesuffix("qkv.weight")
            parts = zip(_PARTS, value.chunk(3), strict=True)
            found |= {f"{outer}{part}.weight": rows for part, rows in parts}
        else:
            found[name] = value
    return found


def pack_attention(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Query, key and value in one, the inverse of :func:`unpack_attention`.

    Args:
        state: with three matrices [width, width] in each block.

    Returns:
        The state dict with ``attn.qkv.weight`` [3 width, width], in new memory.

    Raises:
        WeightsError: one of three is missing, or of another shape than the other two allow.
    """
    found: dict[str, Tensor] = {}
    parts: dict[str, dict[str, Tensor]] = {}
    for name, value in state.items():
        outer, _, last = name.removesuffix(".weight").rpartition(".")
        if outer.endswith(".attn") and last in _PARTS:
            packed = f"{outer}.qkv.weight"
            parts.setdefault(packed, {})[last] = value
            found.setdefault(packed, value)  # keeps the place; replaced below
        else:
            found[name] = value
    for packed, three in parts.items():
        if missing := [part for part in _PARTS if part not in three]:
            raise WeightsError(f"{' and '.join(missing)} of {packed} missing")
        try:
            found[packed] = torch.cat([three[part] for part in _PARTS])
        except RuntimeError as error:
            raise WeightsError(f"query, key and value don't fit in {packed}: {error}") from error
    return found
