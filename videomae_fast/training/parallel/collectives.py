"""Which collectives a process waits in, as torch's flight recorder has them.

It notes those of every group, NCCL's and gloo's, whoever asked for them: FSDP and DDP call theirs
from threads of autograd, where nobody else is asked.
"""

from __future__ import annotations

import json
from typing import Any, Final

from torch._C import _distributed_c10d

_DUMPS: Final = ("_dump_fr_trace_json", "_dump_nccl_trace_json")
_SHOWN: Final = 3


def pending() -> str:
    """The first collective of each group that has not ended, in words; none where torch notes
    none (``TORCH_FR_BUFFER_SIZE=0``)."""
    entries: list[Any] = []
    for name in _DUMPS:
        dump = getattr(_distributed_c10d, name, None)  # a build has its backends' alone
        if dump is not None:
            entries += json.loads(dump(True, False)).get("entries", [])
    return told(entries)


def told(entries: list[Any]) -> str:
    """The same of what the recorder has, in the order in which they were begun."""
    first: dict[str, str] = {}
    for entry in entries:
        if not entry["retired"]:
            number, of = entry["collective_seq_id"], entry["process_group"]
            group = of[0] if of[1] == "undefined" else of[1]
            first.setdefault(of[0], f"{_operation(entry)}, number {number} of group {group}")
    return " and ".join(list(first.values())[:_SHOWN])


def _operation(entry: Any) -> str:
    """Its name and what it sends: ``all_reduce [6 Float]``."""
    name = entry["profiling_name"].rpartition(":")[2]
    sizes = ["x".join(map(str, size)) for size in entry["input_sizes"]]
    given = [f"{s} {dtype}".strip() for s, dtype in zip(sizes, entry["input_dtypes"], strict=True)]
    return f"{name} [{', '.join(given)}]" if given else str(name)
