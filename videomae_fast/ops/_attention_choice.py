"""Which attention backend "auto" is, by device and shape: a table that a benchmark writes."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch import Tensor

TABLE = Path(__file__).with_name("attention_table.json")
DEFAULT = "sdpa"


def read_table(path: Path = TABLE) -> dict[tuple[str, int, int, int], str]:
    """(device capability such as "9.0", head dim, queries, keys) -> backend, as measured."""
    return {
        (entry["capability"], entry["head_dim"], entry["queries"], entry["keys"]): entry["impl"]
        for entry in json.loads(path.read_text())["entries"]
    }


ENTRIES = read_table()


def lookup(capability: tuple[int, int], head_dim: int, queries: int, keys: int) -> str:
    """The backend that was fastest; "sdpa" for what was not measured."""
    major, minor = capability
    return ENTRIES.get((f"{major}.{minor}", head_dim, queries, keys), DEFAULT)


def _on_device(device: torch.device, head_dim: int, queries: int, keys: int) -> str:
    return lookup(torch.cuda.get_device_capability(device), head_dim, queries, keys)


# What torch.compiler.assume_constant_result sets. That function imports the compiler and Triton:
# slow, and it would settle for the process whether kernels are interpreted.
setattr(_on_device, "_dynamo_marked_constant", True)  # noqa: B010


def table_choice(query: Tensor, key: Tensor) -> str:
    """The backend of query [B, Nq, heads, head dim] and key [B, Nk, heads, head dim]."""
    if query.device.type != "cuda" or not ENTRIES:
        return DEFAULT
    return _on_device(query.device, query.shape[3], query.shape[1], key.shape[1])
