"""Checkpoints: folders that are either whole or not there.

``<output>/checkpoints/step-00000123`` (123 steps done) holds ``model.safetensors``,
``optimizer.safetensors``, ``state.json``, which names the size and the CRC-32 of these two, and
``state.json.sha256``, as ``sha256sum`` writes it. So no byte is without a checksum; format 1 had
none for ``state.json`` and is still read. A folder is written under another name, synced to the
disk and renamed; older ones are removed only after that, and under another name as well.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import shutil
import zlib
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from videomae_fast import __version__
from videomae_fast.interop.reading.refusal import refused
from videomae_fast.interop.weights import load_weights
from videomae_fast.training.errors import CheckpointError

FORMAT: Final = 2
WITHOUT_CHECKSUM: Final = 1
"""The format before, without a checksum of ``state.json``."""

MODEL: Final = "model.safetensors"
OPTIMIZER: Final = "optimizer.safetensors"
STATE: Final = "state.json"
CHECKSUM: Final = "state.json.sha256"
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
        folder.parent.mkdir(exist_ok=True)
        for stale in folder.parent.glob(f"{_PARTIAL}*"):
            with suppress(OSError):  # another save tries again, and this one if it is in its way
                _remove(stale)
        _remove(partial)
        _remove(replaced)
        partial.mkdir()
        shape = {"model": state["model"], "options": state["model_options"]}
        files = {
            MODEL: _write_tensors(partial / MODEL, model, {"videomae_fast": json.dumps(shape)}),
            OPTIMIZER: _write_tensors(partial / OPTIMIZER, optimizer, {}),
        }
        text = json.dumps({"format": FORMAT, **state, "versions": versions(), "files": files})
        _write_text(partial / STATE, text)
        _write_text(partial / CHECKSUM, _checksum(text.encode()))
        _sync(partial)
        if os.path.lexists(folder):
            folder.rename(replaced)
        partial.rename(folder)
        _sync(folder.parent)
    except (OSError, SafetensorError) as error:
        with suppress(OSError):
            _remove(partial)
            if os.path.lexists(replaced) and not os.path.lexists(folder):
                replaced.rename(folder)
        raise CheckpointError(_cannot_write(folder, model, optimizer, error)) from error
    # The checkpoint is there: what can't be removed now (a reader has it open on a network's file
    # system), the next save removes.
    old = [] if keep is None else checkpoints(folder.parent)[keep:]
    for each in (replaced, *old):
        if each != folder:
            with suppress(OSError):
                _remove(_renamed(each))
    return folder


def checkpoints(parent: Path) -> list[Path]:
    """The checkpoint folders in ``parent``, newest first, whole or not."""
    if not parent.is_dir():
        return []
    named = [path for path in parent.iterdir() if path.is_dir() and _NAME.fullmatch(path.name)]
    return sorted(named, key=lambda path: int(path.name.removeprefix("step-")), reverse=True)


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


def newest(
    parent: Path, log: Log, check: Callable[[Saved], object] = lambda _: None
) -> Saved | None:
    """The newest whole checkpoint in ``parent``; says which newer ones are not whole, and why.

    check: raises CheckpointError for one that can't be used.
    """
    for folder in checkpoints(parent):
        try:
            saved = read(folder)
            check(saved)
        except CheckpointError as error:
            log(f"ignored: {error}")
        else:
            return saved
    return None


def read(folder: Path, *, verify: bool = True) -> Saved:
    """Checks that a checkpoint is whole, every byte of it.

    verify: compare the tensors' files too, which takes a pass over them; else they are trusted.

    Raises:
        CheckpointError: what is wrong with it.
    """
    try:
        state = _state(folder)
        for name, expected in _files(state).items() if verify else ():
            found = _fingerprint(folder / name)
            if found != expected:
                raise CheckpointError(
                    f"checkpoint {folder} is not whole: {name} has {found['bytes']} bytes and "
                    f"CRC {found['crc32']:08x}, written were {expected['bytes']} and "
                    f"{expected['crc32']:08x}"
                )
        return Saved(folder, _step(state, folder.name), state)
    except OSError as error:
        raise CheckpointError(f"checkpoint {folder} is not whole: {error}") from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise CheckpointError(
            f"checkpoint {folder} is not whole: {STATE} can't be read "
            f"({type(error).__name__}: {error!s:.200})"
        ) from error


def versions() -> dict[str, str]:
    """What a checkpoint was written with."""
    return {
        "videomae_fast": __version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def weights_file(path: Path) -> Path:
    """The .safetensors file that `path` stands for.

    Args:
        path: as :func:`~videomae_fast.tasks.trained.load_model` takes it.

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


def _state(folder: Path) -> dict[str, Any]:
    """What ``state.json`` holds, under its checksum."""
    content = (folder / STATE).read_bytes()
    try:
        said: bytes | None = (folder / CHECKSUM).read_bytes()
    except FileNotFoundError:
        said = None
    if said is not None and said != _checksum(content).encode():
        raise CheckpointError(
            f"checkpoint {folder} is not whole: {STATE} is not what {CHECKSUM} was written for"
        )
    state = json.loads(content)
    if not isinstance(state, dict):
        raise TypeError(f"a {type(state).__name__}")
    version = state["format"]
    if version not in (FORMAT, WITHOUT_CHECKSUM):
        raise CheckpointError(
            f"checkpoint {folder} has format {version!r}, this version reads {WITHOUT_CHECKSUM} "
            f"and {FORMAT}: it was written by {state.get('versions')}"
        )
    if said is None and version != WITHOUT_CHECKSUM:
        raise CheckpointError(f"checkpoint {folder} is not whole: {CHECKSUM} is missing")
    return state


def _files(state: Mapping[str, Any]) -> dict[str, dict[str, int]]:
    """Sizes and checksums of the tensors' files: of both."""
    files: dict[str, dict[str, int]] = state["files"]
    if set(files) != {MODEL, OPTIMIZER}:
        raise ValueError(f"files are {', '.join(files) or 'none'}, not {MODEL} and {OPTIMIZER}")
    for one in files.values():
        if set(one) != {"bytes", "crc32"} or any(type(n) is not int for n in one.values()):
            raise ValueError(f"a size and a CRC are {one}")
    return files


def _step(state: Mapping[str, Any], name: str) -> int:
    step: int = state["step"]
    if type(step) is not int or step < 0:
        raise ValueError(f"step is {step!r}")
    named = _NAME.fullmatch(name)  # a folder may also be given another name by hand
    if named is not None and int(named[1]) != step:
        raise ValueError(f"its step is {step}, and the folder is named {name}")
    return step


def _checksum(content: bytes) -> str:
    return f"{hashlib.sha256(content).hexdigest()}  {STATE}\n"


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
