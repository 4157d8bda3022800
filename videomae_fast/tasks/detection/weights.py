"""Weights that detection begins from: what is kept, left out and new, said aloud."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final, Literal

from torch import Tensor

from videomae_fast.interop import ModelWeights, load_into
from videomae_fast.models.detector import ActionDetector
from videomae_fast.tasks.initial import (
    check_finite,
    check_positions,
    free_differences,
    named,
    record_of,
    tell_parts,
    weights_for,
)
from videomae_fast.training.checkpoint import Log

_OWN: Final = ("head.", "norm.")
"""What weights need not hold: it is new then."""


def begin_detector_from(
    model: ActionDetector, path: str | Path, log: Log, *, init_norm: Literal["new", "fc_norm"]
) -> dict[str, Any]:
    """Loads weights into a new detector; what they don't hold stays as it was drawn.

    The norm of pre-training weights is the detector's. A classifier has none but ``fc_norm``, which
    was learned for the mean of the tokens: it is left out, or taken. Of a detector with as many
    classes the head is kept.

    Args:
        model: whose config's positions are those of the weights.
        path: a file or folder as ``read_weights`` takes it, or a run's or checkpoint's folder.
        log: is told what was kept, left out and is new.
        init_norm: what becomes of a classifier's ``fc_norm``.

    Returns:
        The record of it, as plain values: file, layout, kind, sha256 of each file, new keys.

    Raises:
        WeightsError: they don't fit the model (names what is missing, unused or different), or
            are not finite.

    Source: the official AVA code, which loads without a word what fits and leaves a fine-tuned
    classifier's ``fc_norm`` out.
    """
    path, weights = weights_for(path, model.config, decoder=False)
    check_positions(weights, model.config)
    kept, left_out = _taken(weights, model, init_norm)
    check_finite(path, kept)
    own = model.state_dict()
    new = {key: own[key] for key in own if key not in kept and key.startswith(_OWN)}
    state = {key: value.float() for key, value in kept.items()}
    load_into(model, {**new, **state}, origin=f"{path}: its weights")
    record = {**record_of(path, weights), "new": sorted(new)}
    log(f"began from {named(record)}")
    tell_parts(log, {"stays new": new, "left out": left_out})
    if weights.kind == "classifier" and init_norm == "fc_norm":
        log("norm of the tokens: the classifier's fc_norm, which was learned for their mean")
    for difference in free_differences(weights.config, model.config):
        log(f"differs: {difference}")
    return record


def _taken(
    weights: ModelWeights, model: ActionDetector, init_norm: str
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The weights by the detector's keys, and those that it has no place for."""
    kept: dict[str, Tensor] = {}
    left_out: dict[str, Tensor] = {}
    for key, value in weights.state.items():
        if weights.kind in ("pre-training", "encoder"):
            inside = key.startswith("encoder.")
            (kept if inside else left_out)[key.removeprefix("encoder.") if inside else key] = value
        elif key.startswith("head."):
            same = weights.kind == "detector" and weights.classes == model.head.out_features
            (kept if same else left_out)[key] = value
        elif key.startswith("fc_norm."):
            if init_norm == "fc_norm":
                kept[key.removeprefix("fc_")] = value
            else:
                left_out[key] = value
        else:
            kept[key] = value
    return kept, left_out
