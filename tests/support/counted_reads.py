"""The command line, where what is read of safetensors files is counted: a target for ``Host``."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
from torch import Tensor

from videomae_fast import cli
from videomae_fast.interop.weights import sharded

TARGET = "tests.support.counted_reads:run"


class Counts:
    """Bytes of tensors by the name of their file."""

    def __init__(self) -> None:
        self.bytes: dict[str, int] = {}

    def open(self, filename: Any, *args: Any, **options: Any) -> Opened:
        """In the place of ``safe_open``."""
        return Opened(self, Path(filename).name, Opened.kind(filename, *args, **options))

    def read(self, name: str, tensor: Tensor) -> Tensor:
        self.bytes[name] = self.bytes.get(name, 0) + tensor.nbytes
        return tensor


class Opened:
    """A file, or a tensor in it: what is made of it is counted."""

    kind = safetensors.safe_open

    def __init__(self, counts: Counts, name: str, opened: Any) -> None:
        self._counts, self._name, self._opened = counts, name, opened

    def __enter__(self) -> Opened:
        return Opened(self._counts, self._name, self._opened.__enter__())

    def __exit__(self, *error: object) -> None:
        self._opened.__exit__(*error)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._opened, name)

    def get_tensor(self, name: str) -> Tensor:
        return self._counts.read(self._name, self._opened.get_tensor(name))

    def get_tensors(self) -> dict[str, Tensor]:
        every: dict[str, Tensor] = self._opened.get_tensors()
        return {name: self._counts.read(self._name, tensor) for name, tensor in every.items()}

    def get_slice(self, name: str) -> Opened:
        return Opened(self._counts, self._name, self._opened.get_slice(name))

    def __getitem__(self, places: Any) -> Tensor:
        return self._counts.read(self._name, self._opened[places])


def run(words: list[str]) -> int:
    """words: a folder for ``rank-N.json``, bytes by file; the command line."""
    counts = Counts()
    for module in (safetensors, safetensors.torch, sharded):
        module.safe_open = counts.open  # type: ignore[attr-defined]
    code = cli.main(words[1:])
    Path(words[0], f"rank-{os.environ['RANK']}.json").write_text(json.dumps(counts.bytes))
    return code
