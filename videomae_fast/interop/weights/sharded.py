"""Tensors in a file of each process, as torch.distributed.checkpoint writes them to safetensors."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

from videomae_fast.errors import WeightsError
from videomae_fast.interop.reading.refusal import refused

_WHOLE: Final = "not a whole set of shards"


def read_shards(folder: Path) -> dict[str, Tensor]:
    """All tensors of a folder, put together on the CPU, in one process.

    No pickle is among these files: where a part belongs is said in its file's own header.

    Raises:
        WeightsError: they are no such files, or claim more than they hold.
    """
    with refused(folder, _WHOLE):
        said = _said(folder)
        state = {n: torch.empty(one.size, dtype=one.properties.dtype) for n, one in said.items()}
        _load(state, folder)
    return state


def shard_shapes(folder: Path) -> dict[str, torch.Size]:
    """The shapes of a folder's whole tensors, from its files' headers.

    Raises:
        WeightsError: as :func:`read_shards`.
    """
    with refused(folder, _WHOLE):
        return {name: one.size for name, one in _said(folder).items()}


def read_own_parts(own: Mapping[str, Tensor], folder: Path) -> None:
    """Reads into tensors, in place; of DTensors the parts of this process alone, whoever wrote
    them, and no other byte. Nobody is asked.

    Args:
        own: of the folder's names and shapes; it need not be all.
        folder: of safetensors files, with or without other processes' parts.

    Raises:
        WeightsError: as :func:`read_shards`.
    """
    with refused(folder, _WHOLE), torch.no_grad():
        _said(folder)
        _load(dict(own), folder)


def _said(folder: Path) -> dict[str, Any]:
    """What the headers say of each tensor; that there are all parts of it."""
    # Not at the top: its import takes as long as torch's
    from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader

    said: dict[str, Any] = HuggingFaceStorageReader(str(folder)).read_metadata().state_dict_metadata
    claimed = sum(one.size.numel() * one.properties.dtype.itemsize for one in said.values())
    held = sum(file.stat().st_size for file in folder.iterdir())
    if claimed > held:
        raise WeightsError(f"{folder}: claims {claimed} bytes of tensors and has {held}")
    for name, one in said.items():
        _check_covered(folder, name, one)
    return said


def _load(state: dict[str, Tensor], folder: Path) -> None:
    from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader
    from torch.distributed.checkpoint.state_dict_loader import load

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "torch.distributed is disabled", UserWarning)
        load(state, storage_reader=HuggingFaceStorageReader(str(folder)), no_dist=True)


def _check_covered(folder: Path, name: str, said: Any) -> None:
    """Raises WeightsError where a tensor's parts, which do not overlap, are less than all of it."""
    parts = {tuple(chunk.offsets): chunk.sizes.numel() for chunk in said.chunks}
    if sum(parts.values()) != said.size.numel():
        raise WeightsError(f"{folder}: parts of {name} are missing")
