"""Which collective a process waits in."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
import torch
import torch.distributed as dist

from videomae_fast.training.parallel.collectives import pending, told


def entry(name: str, number: int, group: tuple[str, str], **more: Any) -> dict[str, Any]:
    """As torch's recorder has it."""
    said = {"profiling_name": name, "collective_seq_id": number, "process_group": list(group)}
    return {**said, "retired": False, "input_sizes": [], "input_dtypes": [], **more}


def test_the_first_of_each_group_is_told() -> None:
    mesh, default = ("3", "mesh_parts"), ("0", "default_pg")
    of_one = {"input_sizes": [[6, 2], []], "input_dtypes": ["Float", "Long"]}
    entries = [
        entry("nccl:all_reduce", 8, default, retired=True),
        entry("nccl:_all_gather_base", 4, mesh, **of_one),
        entry("gloo:barrier", 9, ("1", "undefined")),
        entry("nccl:_all_gather_base", 5, mesh),
    ]
    assert told(entries) == (
        "_all_gather_base [6x2 Float, Long], number 4 of group mesh_parts and "
        "barrier, number 9 of group 1"
    )
    assert told(entries[:1]) == ""


@pytest.fixture
def pair() -> Iterator[list[Any]]:
    """Two gloo groups of this process, which are each other's peers."""
    store = dist.HashStore()  # type: ignore[attr-defined]
    limit = timedelta(seconds=30)

    def made(rank: int) -> Any:
        return dist.ProcessGroupGloo(store, rank, 2, limit)  # type: ignore[attr-defined]

    with ThreadPoolExecutor(2) as pool:
        yield list(pool.map(made, range(2)))


def test_torch_notes_what_is_waited_for_until_the_other_comes(pair: list[Any]) -> None:
    one, other = pair
    before = pending()
    waiting = one.allreduce([torch.ones(2, 3)])
    assert pending().startswith(f"{before}all_reduce [2x3 Float], number 1 of group ")
    other.allreduce([torch.ones(2, 3)]).wait()
    waiting.wait()
    deadline = time.monotonic() + 30  # its end is noted by a thread
    while pending() != before:
        assert time.monotonic() < deadline
        time.sleep(0.001)
