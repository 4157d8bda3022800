"""Tensors in a file of each process, as torch.distributed.checkpoint writes them to safetensors."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from videomae_fast.errors import WeightsError
from videomae_fast.interop.reading.refusal import refused


def read_shards(folder: Path) -> dict[str, Tensor]:
    """All tensors of a folder, put together on the CPU, in one process.

    No pickle is among these files: where a part belongs is said in its file's own header.

    Raises:
        WeightsError: they are no such files, or claim more than they hold.
    """
    # Not at the top: its import takes as long as torch's
    from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader
    from torch.distributed.checkpoint.state_dict_loader import load

    with refused(folder, "not a whole set of shards"):
        reader = HuggingFaceStorageReader(str(folder))
        said: dict[str, Any] = reader.read_metadata().state_dict_metadata
        claimed = sum(one.size.numel() * one.properties.dtype.itemsize for one in said.values())
        held = sum(file.stat().st_size for file in folder.iterdir())
        if claimed > held:
            raise WeightsError(f"{folder}: claims {claimed} bytes of tensors and has {held}")
        for name, one in said.items():
            _check_covered(folder, name, one)
        state = {n: torch.empty(one.size, dtype=one.properties.dtype) for n, one in said.items()}
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "torch.distributed is disabled", UserWarning)
            load(state, storage_reader=reader, no_dist=True)
    return state


def _check_covered(folder: Path, name: str, said: Any) -> None:
    """Raises WeightsError where a tensor's parts, which do not overlap, are less than all of it."""
    parts = {tuple(chunk.offsets): chunk.sizes.numel() for chunk in said.chunks}
    if sum(parts.values()) != said.size.numel():
        raise WeightsError(f"{folder}: parts of {name} are missing")
