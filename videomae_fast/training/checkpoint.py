"""Checkpoints: folders that are either whole or not there.

``<output>/checkpoints/step-00000123`` (123 steps done) holds ``model.safetensors``,
``optimizer.safetensors`` and ``state.json``, which names the size and the CRC-32 of the other two.
A folder is written under another name, synced to the disk and renamed; older ones are removed only
after that.
"""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from videomae_fast import __version__
from videomae_fast.interop.description import description_of
from videomae_fast.interop.files import read_weights
from videomae_fast.interop.reading.refusal import refused
from videomae_fast.interop.weights import load_weights
from videomae_fast.models.config import MAEConfig
from videomae_fast.models.masked_autoencoder import MaskedAutoencoder
from videomae_fast.training.errors import CheckpointError

FORMAT: Final = 1
MODEL: Final = "model.safetensors"
OPTIMIZER: Final = "optimizer.safetensors"
STATE: Final = "state.json"
_NAME: Final = re.compile(r"step-(\d{8,})")
_PARTIAL: Final = ".partial-"
_CHUNK: Final = 1 << 22

Log = Callable[[str], None]


@dataclass(frozen=True)
class Saved:
    """A whole checkpoint. step: optimizer steps done, and the number of the next one."""

    folder: Path
    step: int
    state: Mapping[str, Any]

    def model(self) -> dict[str, Tensor]:
        return load_weights(self.folder / MODEL)

    def optimizer(self) -> dict[str, Tensor]:
        """``<moment>.<parameter>`` tensors, on the CPU; none before the first step."""
        with refused(self.folder / OPTIMIZER, "not a whole safetensors file"):
            return load_file(self.folder / OPTIMIZER)


def folder_name(step: int) -> str:
    return f"step-{step:08d}"


def save(
    folder: Path,
    model: Mapping[str, Tensor],
    optimizer: Mapping[str, Tensor],
    state: Mapping[str, Any],
    *,
    keep: int | None = None,
) -> Path:
    """Writes ``folder`` as a whole checkpoint, replacing one of that name.

    Args:
        model, optimizer: tensors on any device.
        state: plain values with ``step``, ``model`` (the dict of a MAEConfig) and
            ``model_options`` (other arguments of MaskedAutoencoder).
        keep: leave this many of the newest checkpoints beside it; None leaves all.

    Raises:
        CheckpointError: it can't be written (a full disk, say); what was there is untouched.
    """
    partial = folder.parent / f"{_PARTIAL}{folder.name}"
    replaced = folder.parent / f"{_PARTIAL}replaced-{folder.name}"
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        for stale in folder.parent.glob(f"{_PARTIAL}*"):
            shutil.rmtree(stale)
        partial.mkdir()
        shape = {"model": state["model"], "options": state["model_options"]}
        files = {
            MODEL: _write_tensors(partial / MODEL, model, {"videomae_fast": json.dumps(shape)}),
            OPTIMIZER: _write_tensors(partial / OPTIMIZER, optimizer, {}),
        }
        text = json.dumps({"format": FORMAT, **state, "versions": versions(), "files": files})
        _write_text(partial / STATE, text)
        _sync(partial)
        if folder.exists():
            folder.rename(replaced)
            partial.rename(folder)
            shutil.rmtree(replaced)
        else:
            partial.rename(folder)
        _sync(folder.parent)
        if keep is not None:
            for old in checkpoints(folder.parent)[keep:]:
                if old != folder:
                    shutil.rmtree(old)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(partial, ignore_errors=True)
        if replaced.exists() and not folder.exists():
            replaced.rename(folder)
        raise CheckpointError(_cannot_write(folder, model, optimizer, error)) from error
    return folder


def checkpoints(parent: Path) -> list[Path]:
    """The checkpoint folders in ``parent``, newest first, whole or not."""
    if not parent.is_dir():
        return []
    named = [path for path in parent.iterdir() if path.is_dir() and _NAME.fullmatch(path.name)]
    return sorted(named, key=lambda path: int(path.name.removeprefix("step-")), reverse=True)


def newest(parent: Path, log: Log) -> Saved | None:
    """The newest whole checkpoint in ``parent``; says which newer ones are not whole, and why."""
    for folder in checkpoints(parent):
        try:
            return read(folder)
        except CheckpointError as error:
            log(f"ignored: {error}")
    return None


def read(folder: Path, *, verify: bool = True) -> Saved:
    """Checks that a checkpoint is whole, every byte of it (or trusts that, without ``verify``).

    Raises:
        CheckpointError: what is wrong with it.
    """
    try:
        state = json.loads((folder / STATE).read_text(encoding="utf-8"))
        if state["format"] != FORMAT:
            raise CheckpointError(
                f"checkpoint {folder} has format {state['format']}, this version reads {FORMAT}: "
                f"it was written by {state.get('versions')}"
            )
        for name, expected in state["files"].items() if verify else ():
            found = _fingerprint(folder / name)
            if found != expected:
                raise CheckpointError(
                    f"checkpoint {folder} is not whole: {name} has {found['bytes']} bytes and "
                    f"CRC {found['crc32']:08x}, written were {expected['bytes']} and "
                    f"{expected['crc32']:08x}"
                )
        return Saved(folder, int(state["step"]), state)
    except OSError as error:
        raise CheckpointError(f"checkpoint {folder} is not whole: {error}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(
            f"checkpoint {folder} is not whole: {STATE} can't be read ({error!r})"
        ) from error


def load_model(path: str | Path) -> tuple[MaskedAutoencoder, MAEConfig]:
    """The model of a checkpoint, on the CPU, in evaluation mode, with its config.

    Args:
        path: a checkpoint folder, a run's folder (its newest whole checkpoint is taken), or a
            ``.safetensors`` file that this package wrote.

    Raises:
        CheckpointError: none of these, or not whole.
        WeightsError: damaged, or the weights don't fit the shape that is written beside them.
    """
    file = weights_file(Path(path))
    if description_of(file) is None:
        raise CheckpointError(
            f"{file}: does not say what shape its model has, so it was not written by pre-training "
            "here; convert it first (videomae-fast convert --to ours)"
        )
    weights = read_weights(file)
    if weights.kind != "pre-training":
        raise CheckpointError(
            f"{file}: holds a {weights.kind}, not a masked autoencoder with its decoder"
        )
    model = weights.model()
    assert isinstance(model, MaskedAutoencoder)
    return model, weights.config


def versions() -> dict[str, str]:
    """What a checkpoint was written with."""
    return {
        "videomae_fast": __version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def weights_file(path: Path) -> Path:
    """The .safetensors file that `path` stands for, as :func:`load_model` takes it.

    Raises:
        CheckpointError: none of these, or not whole.
    """
    if path.is_file():
        if path.suffix == ".safetensors":
            return path
        raise CheckpointError(f"{path}: not a .safetensors file; give one, or a checkpoint folder")
    if (path / STATE).is_file() or (path / MODEL).is_file():
        return read(path).folder / MODEL
    notes: list[str] = []
    parent = path / "checkpoints" if (path / "checkpoints").is_dir() else path
    found = newest(parent, notes.append)
    if found is None:
        said = f" ({'; '.join(notes)})" if notes else ""
        raise CheckpointError(
            f"{path}: no whole checkpoint there{said}; give OUTPUT, or "
            "OUTPUT/checkpoints/step-NNNNNNNN, or a .safetensors file"
        )
    return found.folder / MODEL


def _write_tensors(
    path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str]
) -> dict[str, int]:
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    save_file(plain, path, metadata={"format": "pt", **metadata})
    return _fingerprint(path, sync=True)


def _write_text(path: Path, text: str) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def _fingerprint(path: Path, *, sync: bool = False) -> dict[str, int]:
    size = crc = 0
    with path.open("rb") as file:
        if sync:
            os.fsync(file.fileno())
        while chunk := file.read(_CHUNK):
            size += len(chunk)
            crc = zlib.crc32(chunk, crc)
    return {"bytes": size, "crc32": crc}


def _sync(folder: Path) -> None:
    """Makes the folder's entries last: a rename is only on the disk after that."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _cannot_write(
    folder: Path, model: Mapping[str, Tensor], optimizer: Mapping[str, Tensor], error: Exception
) -> str:
    needed = sum(t.numel() * t.element_size() for t in (*model.values(), *optimizer.values()))
    try:
        free = f", {shutil.disk_usage(folder.parent).free / 1e6:.0f} MB are free there"
    except OSError:
        free = ""
    return (
        f"can't write checkpoint {folder}: {error}. It takes about {needed / 1e6:.0f} MB{free}. "
        "Older checkpoints are untouched: make room, or lower keep_checkpoints, and start the "
        "same command again to go on from the newest"
    )
