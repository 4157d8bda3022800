"""Folders as ``save_pretrained`` and the Hub give them: config.json, weights, shards."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Final

from torch import Tensor

from videomae_fast.errors import WeightsError
from videomae_fast.interop.reading.json_files import read_json
from videomae_fast.interop.weights.check import named
from videomae_fast.interop.weights.state_dicts import load_weights

CONFIG: Final = "config.json"
WEIGHTS: Final = "model.safetensors"
PROCESSOR: Final = "preprocessor_config.json"
CARD: Final = "README.md"
_FILES: Final = (WEIGHTS, "pytorch_model.bin")
_INDEX: Final = ".index.json"
_SHARD: Final = re.compile(r"-\d+-of-\d+\.")


def is_hugging_face_folder(folder: Path) -> bool:
    """Whether a folder has a config.json beside weights of Hugging Face's names.

    A run's has no weights beside it, and a checkpoint's has no config.json.
    """
    names = [name + end for name in _FILES for end in ("", _INDEX)]
    return (folder / CONFIG).is_file() and any((folder / name).is_file() for name in names)


def is_shard(file: Path) -> bool:
    """Whether a file is one of several that hold the weights."""
    return _SHARD.search(file.name) is not None


def settings_of(folder: Path) -> dict[str, Any]:
    """What a folder's config.json says.

    Args:
        folder: as ``save_pretrained`` or the Hub give it.

    Returns:
        Settings by Hugging Face's names.

    Raises:
        WeightsError: not there, broken, or of another model.
    """
    settings = read_json(folder / CONFIG)
    if settings.get("model_type") != "videomae":
        raise WeightsError(f"{folder / CONFIG}: not the config of a VideoMAE (model_type)")
    return settings


def load_folder(folder: Path) -> dict[str, Tensor]:
    """The state dict in a folder, from one file or from shards.

    Args:
        folder: as ``save_pretrained`` or the Hub give it.

    Returns:
        Tensors by the names that they have there.

    Raises:
        WeightsError: no weights there, or shards that don't agree with their index.
    """
    for name in _FILES:
        if (folder / name).is_file():
            return load_weights(folder / name)
        index = folder / f"{name}{_INDEX}"
        if index.is_file():
            return _load_shards(index)
    raise WeightsError(f"{folder}: neither {' nor '.join(_FILES)} in it, nor shards")


def _load_shards(index: Path) -> dict[str, Tensor]:
    """The state dict of the files that an index names."""
    places = read_json(index).get("weight_map")
    if not isinstance(places, dict) or not all(isinstance(name, str) for name in places.values()):
        raise WeightsError(f"{index}: can't be read: its weight_map names no files")
    state: dict[str, Tensor] = {}
    for name in sorted(set(places.values())):
        if Path(name).name != name:
            raise WeightsError(f"{index}: names {name[:80]!r}, which is not a file beside it")
        shard = load_weights(index.parent / name)
        if twice := sorted(set(shard) & set(state)):
            raise WeightsError(f"{index}: two of its files hold {named(twice)}")
        state.update(shard)
    if set(state) != set(places):
        odd = sorted(set(state) ^ set(places))
        raise WeightsError(f"{index}: shards and index don't agree on {named(odd)}")
    return state
