"""Which attention backend "auto" is.

On a GPU: a table by device and shape that a benchmark writes; ``VIDEOMAE_FAST_ATTENTION_TABLE``
names another file of that form, such as one measured on the GPU at hand. On a CPU: the native one,
which computes in fp32 for bf16 too, where torch's own attention, whose products are MKL's, leaves
AVX-512 unused or is slower with AVX2: on others than Intel's.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from videomae_fast.ops import _native
from videomae_fast.ops._processor import WHY_NO_GAIN
from videomae_fast.ops.registry import native_missing

SHIPPED = Path(__file__).parent.with_name("attention_table.json")
VARIABLE = "VIDEOMAE_FAST_ATTENTION_TABLE"
TABLE = Path(os.environ.get(VARIABLE) or SHIPPED)
DEFAULT = "sdpa"
Key = tuple[str, int, int, int]  # device's name, head dim, queries, keys


def read_table(path: Path = TABLE) -> dict[Key, str]:
    """The backend that was fastest on a device (by its full name) at a shape.

    Raises:
        ValueError: the file is not there, or not such a table.
    """
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))["entries"]
        return {
            (entry["device"], entry["head_dim"], entry["queries"], entry["keys"]): entry["impl"]
            for entry in entries
        }
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ValueError(
            f"{path} is no table of attention backends ({type(error).__name__}: {error}); "
            f"`python -m benchmarks attention-choice` writes one, and {VARIABLE} names it"
        ) from error


ENTRIES: Mapping[Key, str] = read_table()


def lookup(device: str, head_dim: int, queries: int, keys: int) -> str:
    """The backend that was fastest on a device of this name; "sdpa" for what was not measured.

    By name and not by capability: an H100 and an H200 have the same one, and another memory.
    """
    return ENTRIES.get((device, head_dim, queries, keys), DEFAULT)


def why_not_native() -> str | None:
    """Why "auto" does not take the native attention on this CPU, or None."""
    reason = native_missing() or WHY_NO_GAIN
    if reason is None and "AVX" not in str(_native.instruction_set()):
        return "the native library was built without AVX2 (GCC 12 or newer makes it)"
    return reason


def _on_device(device: torch.device, head_dim: int, queries: int, keys: int) -> str:
    return lookup(torch.cuda.get_device_name(device), head_dim, queries, keys)


# What torch.compiler.assume_constant_result sets. That function imports the compiler and Triton:
# slow, and it would settle for the process whether kernels are interpreted.
for _constant in (_on_device, why_not_native):
    setattr(_constant, "_dynamo_marked_constant", True)  # noqa: B010


class TablePolicy:
    """On a GPU what the table holds for the device and the shape; on a CPU torch's own attention
    where autocast is to cast for it, which it does for no other.

    The table was measured in bf16 with all keys taking part, and its backends may take nothing
    else: other calls go by the order of the backends, and so do those of a library that is not
    installed here.
    """

    def prefer(self, query: Tensor, key: Tensor, key_count: Tensor | None) -> str | None:
        """The backend of query [B, Nq, heads, head dim] and key [B, Nk, heads, head dim], or None.

        The order is for what was not measured.
        """
        if query.is_cpu:
            cast = torch.is_autocast_enabled("cpu")
            return "sdpa" if cast and query.dtype != torch.get_autocast_dtype("cpu") else None
        measured = query.dtype in (torch.bfloat16, torch.float16) and key_count is None
        if query.device.type != "cuda" or not measured or not ENTRIES:
            return None
        return _on_device(query.device, query.shape[3], query.shape[1], key.shape[1])

    def told(self, device: str) -> str | None:
        """How many shapes the table holds for the GPU at hand."""
        if device != "cuda" or not torch.cuda.is_available():
            return None
        name = torch.cuda.get_device_name()
        count = sum(entry[0] == name for entry in ENTRIES)
        return f"by {TABLE.name} for {count} shapes in bf16 and fp16"
