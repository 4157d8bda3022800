"""Checkpoints of this package's runs, read: whole or refused.

``OUTPUT/checkpoints/step-00000123`` (123 steps done) holds ``model.safetensors``,
``optimizer.safetensors``, ``state.json``, which names the size and the CRC-32 of these two, and
``state.json.sha256``, as ``sha256sum`` writes it. So no byte is without a checksum; format 1 had
none for ``state.json`` and is still read. A run whose states are sharded writes format 3: in place
of ``optimizer.safetensors`` a folder ``optimizer`` with a file of each process, which any number of
processes reads. :mod:`videomae_fast.training.checkpoint` writes them.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from safetensors import safe_open
from safetensors.torch import load_file
from torch import Size, Tensor

from videomae_fast.errors import CheckpointError
from videomae_fast.interop.reading.refusal import refused
from videomae_fast.interop.weights.sharded import read_own_parts, read_shards, shard_shapes
from videomae_fast.interop.weights.state_dicts import load_weights

FORMAT: Final = 2
WITHOUT_CHECKSUM: Final = 1
"""The format before, without a checksum of ``state.json``."""

SHARDED: Final = 3
"""The format with the optimizer's state in a file of each process."""

MODEL: Final = "model.safetensors"
OPTIMIZER: Final = "optimizer.safetensors"
SHARDS: Final = "optimizer"
STATE: Final = "state.json"
CHECKSUM: Final = "state.json.sha256"
_SHARD: Final = re.compile(SHARDS + r"/shard-\d{5}-model-\d{5}-of-\d{5}\.safetensors")
_NAME: Final = re.compile(r"step-(\d{8,})")
_CHUNK: Final = 1 << 22

Log = Callable[[str], None]


@dataclass(frozen=True)
class Saved:
    """A whole checkpoint.

    Attributes:
        folder: that holds it.
        step: optimizer steps done, and the number of the next one.
        state: what ``state.json`` says.
    """

    folder: Path
    step: int
    state: Mapping[str, Any]

    def model(self) -> dict[str, Tensor]:
        """The model's tensors, on the CPU.

        Returns:
            Tensors by the model's names.

        Raises:
            WeightsError: the file is damaged.
        """
        return load_weights(self.folder / MODEL)

    def optimizer(self) -> dict[str, Tensor]:
        """The optimizer's tensors, on the CPU; none before the first step.

        Returns:
            Tensors by ``<moment>.<parameter>``.

        Raises:
            WeightsError: the file is damaged.
        """
        if self.state["format"] == SHARDED:
            return read_shards(self.folder / SHARDS)
        with refused(self.folder / OPTIMIZER, "not a whole safetensors file"):
            return load_file(self.folder / OPTIMIZER)

    def optimizer_shapes(self) -> dict[str, Size]:
        """The shapes of the optimizer's tensors; of these nothing is read.

        Returns:
            Shapes by ``<moment>.<parameter>``.

        Raises:
            WeightsError: a file is damaged.
        """
        if self.state["format"] == SHARDED:
            return shard_shapes(self.folder / SHARDS)
        with (
            refused(self.folder / OPTIMIZER, "not a whole safetensors file"),
            safe_open(self.folder / OPTIMIZER, "pt") as file,
        ):
            return {name: Size(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118

    def read_optimizer(self, own: Mapping[str, Tensor]) -> None:
        """Reads the optimizer's tensors into others, in place; of DTensors this process's parts,
        and no other byte.

        Args:
            own: of the names and shapes of :meth:`optimizer_shapes`.

        Raises:
            WeightsError: a file is damaged.
        """
        sharded = self.state["format"] == SHARDED
        read_own_parts(own, self.folder / (SHARDS if sharded else OPTIMIZER))


def folder_name(step: int) -> str:
    """The name of the folder for a number of steps done."""
    return f"step-{step:08d}"


def checkpoints(parent: Path) -> list[Path]:
    """The checkpoint folders in a folder, whole or not.

    Args:
        parent: a run's ``checkpoints``; it need not be there.

    Returns:
        Folders, newest first.
    """
    if not parent.is_dir():
        return []
    named = [path for path in parent.iterdir() if path.is_dir() and _NAME.fullmatch(path.name)]
    return sorted(named, key=lambda path: int(path.name.removeprefix("step-")), reverse=True)


def newest(
    parent: Path, log: Log, check: Callable[[Saved], object] = lambda _: None
) -> Saved | None:
    """The newest whole checkpoint in a folder.

    Args:
        parent: a run's ``checkpoints``.
        log: is told which newer ones are not whole, and why.
        check: raises CheckpointError for one that can't be used.

    Returns:
        The checkpoint; None where none is whole.
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

    Args:
        folder: of the checkpoint.
        verify: compare the tensors' files too, which takes a pass over them; else they are trusted.

    Returns:
        The checkpoint; its tensors are not read yet.

    Raises:
        CheckpointError: what is wrong with it.
    """
    try:
        state = _state(folder)
        for name, expected in _files(state).items() if verify else ():
            found = fingerprint(folder / name)
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


def weights_file(path: Path) -> Path:
    """The .safetensors file that `path` stands for.

    Args:
        path: as :func:`~videomae_fast.training.trained.load_model` takes it.

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
    if said is not None and said != checksum(content).encode():
        raise CheckpointError(
            f"checkpoint {folder} is not whole: {STATE} is not what {CHECKSUM} was written for"
        )
    state = json.loads(content)
    if not isinstance(state, dict):
        raise TypeError(f"a {type(state).__name__}")
    version = state["format"]
    if version not in (WITHOUT_CHECKSUM, FORMAT, SHARDED):
        raise CheckpointError(
            f"checkpoint {folder} has format {version!r}, this version reads {WITHOUT_CHECKSUM}, "
            f"{FORMAT} and {SHARDED}: it was written by {state.get('versions')}"
        )
    if said is None and version != WITHOUT_CHECKSUM:
        raise CheckpointError(f"checkpoint {folder} is not whole: {CHECKSUM} is missing")
    return state


def _files(state: Mapping[str, Any]) -> dict[str, dict[str, int]]:
    """Sizes and checksums of the tensors' files: of all."""
    files: dict[str, dict[str, int]] = state["files"]
    if state["format"] == SHARDED:
        parts = [name for name in files if _SHARD.fullmatch(name)]
        if not parts or set(files) != {MODEL, *parts}:
            raise ValueError(f"files are {', '.join(files) or 'none'}, not {MODEL} and shards")
    elif set(files) != {MODEL, OPTIMIZER}:
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


def checksum(content: bytes) -> str:
    """What ``state.json.sha256`` holds for a content of ``state.json``."""
    return f"{hashlib.sha256(content).hexdigest()}  {STATE}\n"


def fingerprint(path: Path, *, sync: bool = False) -> dict[str, int]:
    """Size and CRC-32 of a file, as ``state.json`` has them.

    Args:
        path: of the file.
        sync: write it to the disk before.

    Returns:
        ``bytes`` and ``crc32``.
    """
    size = crc = 0
    with path.open("rb") as file:
        if sync:
            os.fsync(file.fileno())
        while chunk := file.read(_CHUNK):
            size += len(chunk)
            crc = zlib.crc32(chunk, crc)
    return {"bytes": size, "crc32": crc}
