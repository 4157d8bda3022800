"""What our own files say about their model, in the metadata of safetensors: written and read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

from safetensors import safe_open

from videomae_fast.errors import WeightsError
from videomae_fast.interop.reading.contents import format_of
from videomae_fast.interop.reading.json_files import parse_object
from videomae_fast.interop.reading.refusal import refused
from videomae_fast.interop.weights.model_weights import HEADED, Kind, ModelWeights
from videomae_fast.models.config import MAEConfig

METADATA: Final = "videomae_fast"
"""Key of the JSON in our files: kind, model (the config), options, and labels of a head."""
_OPTIONS: Final[dict[Kind, dict[str, type]]] = {
    "pre-training": {"normalize_target": bool, "ignore_flat_cubes": bool},
    "classifier": {"num_classes": int},
    "encoder": {},
    "detector": {
        "num_classes": int,
        "bins": int,
        "sampling_ratio": int,
        "aligned": bool,
        "mean": list,
        "std": list,
    },
}


@dataclass(frozen=True)
class Description:
    """What a file says, as :class:`~videomae_fast.interop.ModelWeights` has it.

    Attributes:
        kind: of the model.
        config: of the model.
        options: other arguments of MaskedAutoencoder or a detector.
        labels: names of the classes, where they are known.
    """

    kind: Kind
    config: MAEConfig
    options: Mapping[str, Any]
    labels: tuple[str, ...] | None


def describe(weights: ModelWeights) -> str:
    """The JSON for a file of these weights.

    Args:
        weights: that the file holds.
    """
    options = dict(weights.options)
    if weights.kind in HEADED:
        options |= {"num_classes": weights.classes}
    said: dict[str, Any] = {
        "kind": weights.kind,
        "model": weights.config.to_dict(),
        "options": options,
    }
    if weights.labels is not None:
        said["labels"] = list(weights.labels)
    return json.dumps(said)


def description_of(path: Path) -> Description | None:
    """What a file says about its model.

    Args:
        path: of a weights file.

    Returns:
        What it says; None where it says nothing, as files of others.

    Raises:
        WeightsError: no weights file, or it says what can't be.
    """
    if format_of(path) != "safetensors":
        return None
    with refused(path, "not a whole safetensors file"), safe_open(path, "pt") as file:
        text = (file.metadata() or {}).get(METADATA)
    if text is None:
        return None
    said = parse_object(text, f"{path}: its {METADATA} metadata")
    with refused(path, "what it says about its model can't be read"):
        kind = said.get("kind", "pre-training")  # checkpoints don't say it
        if kind not in tuple(_OPTIONS):
            raise WeightsError(
                f"{path}: says that it is {str(kind)[:40]!r}, which this version doesn't know"
            )
        kind = cast(Kind, kind)
        config = MAEConfig.from_dict(said["model"])
        options, labels = dict(said["options"]), said.get("labels")
        for name, value in options.items():
            expected = _OPTIONS[kind].get(name)
            if expected is None:
                raise WeightsError(f"{path}: unknown model option {name[:40]!r}")
            if type(value) is not expected:
                raise WeightsError(f"{path}: model option {name} is no {expected.__name__}")
        if labels is not None and not (
            isinstance(labels, list) and all(isinstance(label, str) for label in labels)
        ):
            raise WeightsError(f"{path}: its labels are no list of names")
    return Description(
        kind,
        config,
        {name: value for name, value in options.items() if name != "num_classes"},
        None if labels is None else tuple(labels),
    )
