"""Tensors in a file of each process, as torch.distributed.checkpoint writes them to safetensors."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import torch
from safetensors import safe_open
from torch import Tensor

from videomae_fast.errors import WeightsError
from videomae_fast.interop.reading.refusal import refused
from videomae_fast.models.dtensor import is_dtensor

if TYPE_CHECKING:
    from torch.distributed.tensor import DTensor

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


def read_own_parts(own: Mapping[str, Tensor], path: Path) -> None:
    """Reads into tensors, in place; of DTensors the parts of this process alone, whoever wrote
    them, and no other byte. Nobody is asked.

    Args:
        own: of the names and shapes that are there; it need not be all.
        path: a folder as :func:`read_shards` takes it, or one safetensors file.

    Raises:
        WeightsError: they are no such files, or claim more than they hold.
    """
    with refused(path, _WHOLE), torch.no_grad():
        if path.is_dir():
            _said(path)
            _load(dict(own), path)
            return
        with safe_open(path, "pt") as file:
            for name, tensor in own.items():
                if is_dtensor(tensor):
                    local, places = tensor.to_local(), _places(tensor)
                    local.copy_(file.get_slice(name)[places] if local.numel() else local)
                else:
                    tensor.copy_(file.get_tensor(name))


def _places(tensor: DTensor) -> tuple[slice, ...]:
    """Where this process's part of a tensor is in all of it."""
    from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

    mesh, placements = tensor.device_mesh, tensor.placements
    sizes, offsets = compute_local_shape_and_global_offset(tensor.shape, mesh, placements)
    return tuple(slice(at, at + size) for at, size in zip(offsets, sizes, strict=True))


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
