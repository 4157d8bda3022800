"""What the files of each layout hold: tensors by its names, what is said beside them or isn't."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from videomae_fast.errors import WeightsError
from videomae_fast.interop.weights.config_json import (
    FINAL_NORM_EPS,
    processor_settings,
    settings_for,
)
from videomae_fast.interop.weights.description import METADATA, describe
from videomae_fast.interop.weights.hub_folders import CARD, CONFIG, PROCESSOR
from videomae_fast.interop.weights.layouts.hugging_face import BiasNames, to_hugging_face_keys
from videomae_fast.interop.weights.layouts.mmaction2 import POSITIONS, to_mmaction2_keys
from videomae_fast.interop.weights.model_card import model_card
from videomae_fast.interop.weights.model_weights import (
    HEADED,
    Change,
    Layout,
    ModelWeights,
    has_official_eps,
    official_options,
)
from videomae_fast.interop.weights.shapes import SourceHints, infer_config
from videomae_fast.models.positions import sinusoid_table


def as_json(said: Mapping[str, Any]) -> str:
    """The text of a JSON file."""
    return json.dumps(said, indent=2, ensure_ascii=False) + "\n"


@dataclass(frozen=True)
class Content:
    """What goes into the files of a layout.

    Attributes:
        state: tensors by the layout's names.
        changes: what the layout can't say, or says besides.
        metadata: of a safetensors file.
        documents: texts of the files beside the weights, by name; then the destination is a folder.
        container: the key of the state dict in a .pth file.
    """

    state: Mapping[str, Tensor]
    changes: tuple[Change, ...] = ()
    metadata: Mapping[str, str] = field(default_factory=dict)
    documents: Mapping[str, str] = field(default_factory=dict)
    container: str = "model"


def content_of(
    weights: ModelWeights,
    layout: Layout,
    *,
    biases: BiasNames = "q_bias",
    licence: str | None = None,
) -> Content:
    """The weights in a layout.

    Args:
        weights: by official names.
        layout: whose names and files.
        biases: spelling of the q and v biases in Hugging Face's layout.
        licence: of the weights, for the model card there.

    Returns:
        Tensors by the layout's names, and what is said beside them.

    Raises:
        WeightsError: the layout can't hold these weights, or its code would compute something else.
    """
    if licence is not None and layout != "hugging-face":
        raise WeightsError(f"the layout {layout} has no model card that would say the licence")
    if layout == "ours":
        return _ours(weights)
    if layout == "hugging-face":
        settings, state, changes = to_hugging_face(weights, biases=biases)
        documents = {CONFIG: settings, PROCESSOR: processor_settings(weights.config)}
        texts = {name: as_json(said) for name, said in documents.items()}
        texts[CARD] = model_card(weights, settings, changes, licence)
        return Content(state, tuple(changes), documents=texts)
    _check_official_eps(weights)
    return _mmaction2(weights) if layout == "mmaction2" else _official(weights)


def to_hugging_face(
    weights: ModelWeights, *, biases: BiasNames = "q_bias"
) -> tuple[dict[str, Any], dict[str, Tensor], list[Change]]:
    """What goes into config.json and model.safetensors, and what could not be said there.

    Args:
        weights: by official names.
        biases: spelling of the q and v biases, see
            :mod:`~videomae_fast.interop.weights.layouts.hugging_face`.

    Returns:
        Settings, tensors by Hugging Face's names, and changes.

    Raises:
        WeightsError: a detector, learned positions or LayerScale, which their models don't have.
    """
    config = weights.config
    settings = settings_for(weights)
    changes = []
    if weights.kind != "encoder" and config.final_norm_eps != FINAL_NORM_EPS:
        norm = "fc_norm" if weights.kind == "classifier" else "decoder.norm"
        changes.append(
            Change(
                "differs",
                f"{norm}'s epsilon is {config.final_norm_eps:g} here and {FINAL_NORM_EPS:g} in "
                "Hugging Face's code, where no config can change it: a row of variance v changes "
                "by a factor of about 1 + (old - new) / 2v",
            )
        )
    changes += [
        Change("left out", f"option {option}, which Hugging Face's model does not have")
        for option, value in weights.options.items()
        if option != "normalize_target" and value
    ]
    return settings, to_hugging_face_keys(weights.state, biases=biases), changes


def _ours(weights: ModelWeights) -> Content:
    if weights.kind == "encoder":
        raise WeightsError(
            f"{weights.origin.name}: holds an encoder alone, which no model here is; make a "
            "classifier of it (--classifier --classes N)"
        )
    return Content(weights.state, metadata={METADATA: describe(weights)})


def _official(weights: ModelWeights) -> Content:
    config = weights.config
    if weights.kind == "pre-training":
        other = [
            what
            for what, there in (
                ("no norm after the encoder", not config.encoder_norm),
                ("another MLP ratio in the decoder", config.decoder_mlp_ratio is not None),
            )
            if there
        ]
        if other:
            raise WeightsError(
                f"{weights.origin.name}: has {' and '.join(other)}, which the official code can't; "
                "write it with --to ours or --to hugging-face, or make a classifier of it"
            )
    return Content(weights.state, _unsaid(weights, "official files"))


def _mmaction2(weights: ModelWeights) -> Content:
    if weights.kind not in HEADED:
        raise WeightsError(
            f"{weights.origin.name}: holds {weights.kind} weights; mmaction2 has classifiers and "
            "detectors. Make a classifier of it (--classifier --classes N)"
        )
    config = weights.config
    state = to_mmaction2_keys(weights.state, detector=weights.kind == "detector")
    changes = _unsaid(weights, "mmaction2's files")
    if not config.learned_positions:
        table = {POSITIONS: sinusoid_table(config.grid.tokens, config.width)[None]}
        changes += (Change("made new", "the fixed sinusoid, which mmaction2 stores", table),)
        state |= table
    return Content(state, changes, container="state_dict")


def _check_official_eps(weights: ModelWeights) -> None:
    config = weights.config
    if not has_official_eps(config):
        raise WeightsError(
            f"{weights.origin.name}: LayerNorm's epsilon is {config.norm_eps:g} in blocks and "
            f"{config.final_norm_eps:g} before the head; the official code has 1e-6 and its files "
            "can't say otherwise. Take it with --official-eps (with_official_eps), which changes "
            "the function slightly"
        )


def _unsaid(weights: ModelWeights, files: str) -> tuple[Change, ...]:
    """What files without anything but tensors can't say."""
    changes = []
    try:
        read = infer_config(
            weights.state, weights.kind, SourceHints(), weights.origin.name
        ).to_dict()
    except WeightsError:
        read = {}
    names = ["heads", "decoder_heads", "frames", "image_size"]
    if weights.kind != "pre-training":
        names.remove("decoder_heads")
    said = weights.config.to_dict()
    asked = [f"{name} {said[name]}" for name in names if read.get(name) != said[name]]
    if weights.kind == "detector" and files.startswith("official"):
        asked.append("that it is a detector")
    if asked:
        changes.append(
            Change("left out", f"{', '.join(asked)}: to be said again when the file is read")
        )
    # mmaction2's own options are of its configuration, and others than the official ones
    usual = official_options(weights.kind) if files.startswith("official") else {}
    changes += [
        Change("left out", f"option {option}={value}, which {files} can't say")
        for option, value in weights.options.items()
        if option not in usual or value != usual[option]
    ]
    if weights.labels is not None:
        changes.append(Change("left out", f"names of the classes, which {files} can't say"))
    return tuple(changes)
