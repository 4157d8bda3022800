"""Checkpoints: folders that are either whole or not there, as they are written.

What is in one, and how it is read, says :mod:`videomae_fast.interop.weights.run_folders`. A folder
is written under another name, synced to the disk and renamed; older ones are removed only after
that, and under another name as well.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from videomae_fast import __version__
from videomae_fast.interop.weights.run_folders import (
    CHECKSUM,
    FORMAT,
    MODEL,
    OPTIMIZER,
    STATE,
    Log,
    checkpoints,
    checksum,
    fingerprint,
)
from videomae_fast.training.errors import CheckpointError

_PARTIAL: Final = ".partial-"


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
    try:
        partial = begin(folder)
        files = {
            MODEL: write_model(partial, model, state),
            OPTIMIZER: _write_tensors(partial / OPTIMIZER, optimizer, {}),
        }
        commit(partial, folder, {"format": FORMAT, **state}, files)
    except (OSError, SafetensorError) as error:
        roll_back(folder)
        needed = sum(t.numel() * t.element_size() for t in (*model.values(), *optimizer.values()))
        raise CheckpointError(cannot_write(folder, needed, error)) from error
    tidy(folder, keep)
    return folder


def begin(folder: Path) -> Path:
    """The folder, under another name, that is to become ``folder``; what others left is gone.

    Raises:
        OSError: it can't be made.
    """
    partial = partial_of(folder)
    folder.parent.mkdir(exist_ok=True)
    for stale in folder.parent.glob(f"{_PARTIAL}*"):
        with suppress(OSError):  # another save tries again, and this one if it is in its way
            _remove(stale)
    _remove(partial)
    _remove(_replaced(folder))
    partial.mkdir()
    return partial


def write_model(
    partial: Path, model: Mapping[str, Tensor], state: Mapping[str, Any]
) -> dict[str, int]:
    """Writes the weights and what model they are of; the file's size and checksum.

    Raises:
        OSError, SafetensorError: it can't be written.
    """
    shape = {"model": state["model"], "options": state["model_options"]}
    shape |= {key: state[key] for key in ("kind", "labels") if key in state}
    return _write_tensors(partial / MODEL, model, {"videomae_fast": json.dumps(shape)})


def commit(
    partial: Path, folder: Path, state: Mapping[str, Any], files: Mapping[str, dict[str, int]]
) -> None:
    """Makes what is in ``partial`` the checkpoint: from here on it is there, and whole.

    files: size and checksum of each, by its name.

    Raises:
        OSError: it can't be.
    """
    text = json.dumps({**state, "versions": versions(), "files": files})
    _write_text(partial / STATE, text)
    _write_text(partial / CHECKSUM, checksum(text.encode()))
    for inner in {(partial / name).parent for name in files} - {partial}:
        _sync(inner)
    _sync(partial)
    if os.path.lexists(folder):
        folder.rename(_replaced(folder))
    partial.rename(folder)
    _sync(folder.parent)


def roll_back(folder: Path) -> None:
    """After a failure: what was there before is there again."""
    replaced = _replaced(folder)
    with suppress(OSError):
        _remove(partial_of(folder))
        if os.path.lexists(replaced) and not os.path.lexists(folder):
            replaced.rename(folder)


def tidy(folder: Path, keep: int | None) -> None:
    """Removes what a new checkpoint takes the place of; ``keep``: see :func:`save`.

    What can't be removed now (a reader has it open on a network's file system), the next save
    removes.
    """
    old = [] if keep is None else checkpoints(folder.parent)[keep:]
    for each in (_replaced(folder), *old):
        if each != folder:
            with suppress(OSError):
                _remove(_renamed(each))


def partial_of(folder: Path) -> Path:
    """Where a checkpoint is written before it is one."""
    return folder.parent / f"{_PARTIAL}{folder.name}"


def _replaced(folder: Path) -> Path:
    return folder.parent / f"{_PARTIAL}replaced-{folder.name}"


def set_aside(parent: Path, step: int, log: Log) -> None:
    """Moves checkpoints of later steps out of the way of a run that goes back to this one.

    Otherwise the run would go on from them when it is resumed, without the steps between.

    Raises:
        CheckpointError: they can't be moved.
    """
    later = [folder for folder in checkpoints(parent) if int(folder.name[5:]) > step]
    target = parent.parent / "superseded"
    try:
        for folder in later:
            target.mkdir(exist_ok=True)
            number = len(list(target.glob(f"{folder.name}*")))
            new = target / (f"{folder.name}~{number}" if number else folder.name)
            folder.rename(new)
            log(f"{folder} is later than step {step}, and is now {new}")
    except OSError as error:
        raise CheckpointError(f"can't move {folder} to {target}: {error}") from error


def versions() -> dict[str, str]:
    """What a checkpoint was written with."""
    return {
        "videomae_fast": __version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def _remove(path: Path) -> None:
    """Whatever it is, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _renamed(path: Path) -> Path:
    """Under a name that is no checkpoint's: half removed, it must not pass for one."""
    if path.name.startswith(_PARTIAL):
        return path
    target = path.with_name(f"{_PARTIAL}old-{path.name}")
    path.rename(target)
    return target


def _write_tensors(
    path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str]
) -> dict[str, int]:
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    save_file(plain, path, metadata={"format": "pt", **metadata})
    return fingerprint(path, sync=True)


def _write_text(path: Path, text: str) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def _sync(folder: Path) -> None:
    """Makes the folder's entries last: a rename is only on the disk after that."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def cannot_write(folder: Path, needed: int, error: object) -> str:
    """What is said of a checkpoint that can't be written. needed: bytes of all of it."""
    try:
        free = f", {shutil.disk_usage(folder.parent).free / 1e6:.0f} MB are free there"
    except OSError:
        free = ""
    return (
        f"can't write checkpoint {folder}: {error}. It takes about {needed / 1e6:.0f} MB{free}. "
        "Older checkpoints are untouched: make room, or lower keep_checkpoints, and start the "
        "same command again to go on from the newest"
    )
