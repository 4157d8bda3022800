"""Weights files: safetensors, and the official .pth checkpoints without executing pickles."""

from __future__ import annotations

import argparse
import pickle
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from videomae_fast.errors import WeightsError

# Official checkpoints hold their command line; these classes only carry values.
_PLAIN_CLASSES: list[Any] = [argparse.Namespace]
_NESTS = ("model", "module", "state_dict")
_PREFIXES = ("_orig_mod.", "module.")


def load_weights(path: str | Path) -> dict[str, Tensor]:
    """The state dict of a weights file, on the CPU, with the keys that it has.

    The file is mapped into memory, not read at once: what is never touched (an optimizer's state in
    a checkpoint) costs nothing. Files of torch before 1.6 can't be mapped and are read.

    Un-nests `model` / `module` / `state_dict`, and strips the prefixes that torch.compile
    (`_orig_mod.`) and DistributedDataParallel (`module.`) leave behind.

    Args:
        path: .safetensors, or a torch checkpoint (.pth, .pt, .bin); the latter is read with
            ``weights_only=True``, so nothing in it is executed.

    Raises:
        WeightsError: no such file, not a weights file, or a checkpoint that holds code.
    """
    path = Path(path)
    if not path.is_file():
        raise WeightsError(f"{path}: no such weights file")
    if path.suffix == ".safetensors":
        try:
            return strip_prefixes(load_file(path))
        except SafetensorError as error:
            raise WeightsError(f"{path}: not a whole safetensors file ({error})") from error
    try:
        with torch.serialization.safe_globals(_PLAIN_CLASSES):
            loaded = torch.load(
                path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path)
            )
    except pickle.UnpicklingError as error:
        raise WeightsError(
            f"{path}: holds objects other than tensors and plain values, which are not loaded "
            f"because that would execute code from the file ({str(error).splitlines()[0]}). "
            "Save its state dict alone, or as safetensors, on a machine that trusts it"
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError) as error:
        raise WeightsError(f"{path}: not a torch checkpoint ({error})") from error
    return strip_prefixes(_unnest(path, loaded))


def _unnest(path: Path, loaded: Any) -> dict[str, Tensor]:
    while isinstance(loaded, Mapping):
        inner = [loaded[key] for key in _NESTS if isinstance(loaded.get(key), Mapping)]
        if not inner:
            break
        loaded = inner[0]
    if not isinstance(loaded, Mapping):
        raise WeightsError(f"{path}: holds a {type(loaded).__name__}, not a state dict")
    others = [key for key, value in loaded.items() if not isinstance(value, Tensor)]
    if others or not loaded:
        raise WeightsError(
            f"{path}: not a state dict: {', '.join(map(str, others[:5])) or 'nothing'} in it"
        )
    return dict(loaded)


def strip_prefixes(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state dict without the prefixes of torch.compile and DistributedDataParallel.

    Raises:
        WeightsError: two keys become the same.
    """
    stripped: dict[str, Tensor] = {}
    for key, value in state.items():
        name = key
        while (prefix := next((p for p in _PREFIXES if name.startswith(p)), None)) is not None:
            name = name[len(prefix) :]
        if name in stripped:
            raise WeightsError(f"two entries of the state dict become {name!r}, one is {key!r}")
        stripped[name] = value
    return stripped


def load_into(model: nn.Module, state: Mapping[str, Tensor], *, origin: str = "weights") -> None:
    """Loads a state dict whole: nothing missing, nothing unused, every shape right.

    Raises:
        WeightsError: lists what is missing, unused or of another shape.
    """
    check_fits(model, state, origin=origin)
    model.load_state_dict(state)


def check_fits(model: nn.Module, state: Mapping[str, Tensor], *, origin: str = "weights") -> None:
    """Compares keys and shapes; the model may be on the meta device.

    Raises:
        WeightsError: lists what is missing, unused or of another shape.
    """
    own = model.state_dict()
    missing = sorted(set(own) - set(state))
    unused = sorted(set(state) - set(own))
    shapes = [
        f"{key} {list(state[key].shape)} (the model has {list(own[key].shape)})"
        for key in own
        if key in state and state[key].shape != own[key].shape
    ]
    problems = [
        f"{what}: {named(keys)}"
        for what, keys in (("missing", missing), ("unused", unused), ("other shape", shapes))
        if keys
    ]
    if problems:
        raise WeightsError(f"{origin} do not fit {type(model).__name__}: {'; '.join(problems)}")


def named(keys: Sequence[str], most: int = 8) -> str:
    """The first of some keys, and how many more there are."""
    more = f" and {len(keys) - most} more" if len(keys) > most else ""
    return ", ".join(keys[:most]) + more
