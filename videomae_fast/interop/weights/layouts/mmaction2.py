"""mmaction2's names, which OpenTAD's have too: of classifiers and of detectors.

Recognisers hold ``backbone`` and ``cls_head``, detectors ``backbone`` and ``roi_head``; a prefix of
wrappers has been cut before (:func:`~.official.unwrapped`). Beside the weights lies the fixed table
of positions.

Source: mmaction2 1.2, mmaction/models/backbones/vit_mae.py and heads/tsn_head.py,
roi_heads/bbox_heads/bbox_head.py; mmcv's FFN.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from torch import Tensor

from videomae_fast.interop.weights.layouts.names import Names

POSITIONS: Final = "backbone.pos_embed"
_HEADS: Final = {"classifier": "cls_head.fc_cls.", "detector": "roi_head.bbox_head.fc_cls."}
_MODULES: Final = {
    "pos_embed": "pos_embed",
    "patch_embed.proj.": "patch_embed.projection.",
    "blocks.#.norm1.": "blocks.#.norm1.",
    "blocks.#.norm2.": "blocks.#.norm2.",
    "blocks.#.attn.q_bias": "blocks.#.attn.q_bias",
    "blocks.#.attn.v_bias": "blocks.#.attn.v_bias",
    "blocks.#.attn.qkv.weight": "blocks.#.attn.qkv.weight",
    "blocks.#.attn.proj.": "blocks.#.attn.proj.",
    "blocks.#.mlp.fc1.": "blocks.#.mlp.layers.0.0.",
    "blocks.#.mlp.fc2.": "blocks.#.mlp.layers.1.",
    "blocks.#.gamma_1": "blocks.#.gamma_1",
    "blocks.#.gamma_2": "blocks.#.gamma_2",
    "norm.": "norm.",
    "fc_norm.": "fc_norm.",
}
_BACKBONE: Final = {ours: f"backbone.{theirs}" for ours, theirs in _MODULES.items()}
_BARE: Final = {theirs: ours for ours, theirs in _MODULES.items()} | dict.fromkeys(
    _HEADS.values(), "head."
)
_NAMES: Final = {
    kind: Names("mmaction2's", {**_BACKBONE, "head.": head}, _BARE) for kind, head in _HEADS.items()
}


def is_mmaction2(state: Mapping[str, Tensor]) -> bool:
    """Whether these are mmaction2's names, with or without ``backbone.``."""
    return any(key.removeprefix("backbone.") == "patch_embed.projection.weight" for key in state)


def is_detector(state: Mapping[str, Tensor]) -> bool:
    """Whether a head for boxes is among mmaction2's names."""
    return any(key.startswith("roi_head.") for key in state)


def to_mmaction2_keys(state: Mapping[str, Tensor], *, detector: bool = False) -> dict[str, Tensor]:
    """Official names to mmaction2's.

    Args:
        state: of a classifier, or of a detector.
        detector: it is a detector's, whose head goes to ``roi_head``.

    Returns:
        The same tensors.

    Raises:
        WeightsError: tensors that have no counterpart.
    """
    return _NAMES["detector" if detector else "classifier"].theirs(state)


def from_mmaction2_keys(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """mmaction2's names to official ones, the inverse of :func:`to_mmaction2_keys`.

    Args:
        state: with or without ``backbone.`` before its names.

    Returns:
        The same tensors.

    Raises:
        WeightsError: tensors that have no counterpart, or two that have the same.
    """
    return _NAMES["classifier"].ours(state)
