"""Which attention backend "auto" is.

On a GPU: a table by device and shape that a benchmark writes. On a CPU: the native one for fp32
where torch's own attention, whose products are MKL's, leaves AVX-512 unused.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch import Tensor

from videomae_fast.ops import _native
from videomae_fast.ops._dispatch import native_missing
from videomae_fast.ops._processor import WHY_NO_GAIN

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


def why_not_native() -> str | None:
    """Why "auto" does not take the native attention for fp32 on this CPU, or None."""
    reason = native_missing() or WHY_NO_GAIN
    if reason is None and "AVX-512" not in str(_native.instruction_set()):
        return "the native library was built without AVX-512 (GCC 12 or newer makes it)"
    return reason


def _on_device(device: torch.device, head_dim: int, queries: int, keys: int) -> str:
    return lookup(torch.cuda.get_device_capability(device), head_dim, queries, keys)


def _on_cpu() -> str:
    return "native" if why_not_native() is None else DEFAULT


# What torch.compiler.assume_constant_result sets. That function imports the compiler and Triton:
# slow, and it would settle for the process whether kernels are interpreted.
for _constant in (_on_device, _on_cpu):
    setattr(_constant, "_dynamo_marked_constant", True)  # noqa: B010


def choice(query: Tensor, key: Tensor) -> str:
    """The backend of query [B, Nq, heads, head dim] and key [B, Nk, heads, head dim]."""
    if query.device.type == "cpu":
        own = query.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
        return _on_cpu() if own else DEFAULT
    if query.device.type != "cuda" or not ENTRIES:
        return DEFAULT
    return _on_device(query.device, query.shape[3], query.shape[1], key.shape[1])
