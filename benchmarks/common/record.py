"""What every result file says: when, on what, with what, by which command."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Collection
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from benchmarks.common.card import card
from benchmarks.common.commit import tree_commit
from benchmarks.common.processor import matmul_rates, processor
from videomae_fast import __version__
from videomae_fast.data.files import write_lines
from videomae_fast.ops._attention import choice
from videomae_fast.ops.registry import native_missing

# Whose kernels or frames a number may be of, where they are installed
LIBRARIES = (
    "numpy", "pillow", "transformers", "flash-attn", "flash-attn-4", "nvidia-cutlass-dsl",
    "xformers", "av", "decord", "torchcodec", "nvidia-dali-cuda130",
)  # fmt: skip
RESULTS = Path(__file__).parents[1] / "results"


def environment(device: str, command: list[str]) -> dict[str, Any]:
    """What a record says besides its results.

    Args:
        device: what is measured on, as torch names it.
        command: its words.

    Returns:
        Date, commit, machine, versions, command and attention's table; of a GPU its clocks as
        found, of a CPU the rates of its matmuls with as many threads as torch has now.
    """
    on_cpu = torch.device(device).type == "cpu"
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": " ".join(_portable(word) for word in command),
        **tree_commit(),
        "machine": {
            "device": _device_name(device),
            "capability": _capability(device),
            "card": _card(device),
            "cpu": processor()["name"],
            "processor": processor(),
            "matmul_GFLOP/s": matmul_rates(torch.get_num_threads()) if on_cpu else None,
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "load_average": list(os.getloadavg()),
            "system": f"{platform.system()} {platform.machine()}",
        },
        "versions": {
            "videomae-fast": __version__,
            "python": platform.python_version(),
            "torch": torch.__version__,
            "cuda": torch.version.cuda,
            **{name: _version(name) for name in ("triton", *LIBRARIES)},
        },
        "attention_table": {
            "file": choice.TABLE.name,
            "entries": [[*key, impl] for key, impl in choice.ENTRIES.items()],
        },
        "native_library": native_missing() or "in use",
    }


def _portable(word: str) -> str:
    """A word of a command; a place on this machine by its name alone."""
    return f"../{Path(word).name}" if Path(word).is_absolute() else word


def write(record: dict[str, Any], path: Path) -> Path:
    """Writes a record as JSON, whole or not at all, its folder too; returns the path.

    Raises:
        OutputError: it can't be written.
    """
    write_lines(path, [json.dumps(record, indent=1) + "\n"])
    return path


def read(path: Path) -> dict[str, Any]:
    """Reads a record.

    Raises:
        ValueError: there is no such file, or it holds no record.
    """
    try:
        record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} can't be read: {error}") from error
    if not isinstance(record, dict):
        raise ValueError(f"{path} is no record")
    return record


def read_of(kinds: Collection[str], path: Path) -> dict[str, Any]:
    """Reads a record whose kind is one of `kinds`.

    Raises:
        ValueError: it is of another kind, or can't be read.
    """
    record = read(path)
    if record.get("kind") not in kinds:
        raise ValueError(f"{path} is of {record.get('kind')!r}, not of {', '.join(kinds)}")
    return record


def stamp() -> str:
    """Date and time for a file name, UTC."""
    return datetime.now(UTC).strftime("%Y%m%d-%H%M%S")


def _device_name(device: str) -> str:
    if torch.device(device).type == "cuda":
        return torch.cuda.get_device_name(torch.device(device))
    return device


def _capability(device: str) -> str | None:
    """Of a GPU, such as "9.0"."""
    if torch.device(device).type != "cuda":
        return None
    major, minor = torch.cuda.get_device_capability(torch.device(device))
    return f"{major}.{minor}"


def _card(device: str) -> dict[str, Any] | None:
    """What nvidia-smi says of a GPU now; None of a CPU."""
    if torch.device(device).type != "cuda":
        return None
    index = torch.device(device).index or 0
    found = card(f"GPU-{torch.cuda.get_device_properties(index).uuid}")
    return card(str(index)) if "unknown" in found else found


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
