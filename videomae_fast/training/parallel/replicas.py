"""Copies of the states that ought to be equal bit for bit: a look at whether they are.

A GPU that computes wrong without a word (silent data corruption) drives its copy of the weights
away from the others'. A checksum of each parameter on each process, compared over copies, names it.
"""

from __future__ import annotations

import socket
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final

import torch
from torch import Tensor, nn

from videomae_fast.training.errors import ReplicaError
from videomae_fast.training.parallel.fsdp import local
from videomae_fast.training.parallel.layout import Layout
from videomae_fast.training.parallel.world import World

_BITS: Final = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
_SHOWN: Final = 3


def checksums(model: nn.Module) -> Tensor:
    """Of this process's part of each parameter: the sum of its bits as integers, int64 [N].

    Any one value that is another one shows; nothing is read from the device.
    """
    parts = [local(parameter.detach()) for parameter in model.parameters()]
    return torch.stack(
        [
            part.contiguous().view(_BITS[part.element_size()]).sum(dtype=torch.int64)
            for part in parts
        ]
    )


def check_replicas(model: nn.Module, layout: Layout, world: World, done: int) -> None:
    """Compares the copies of all parameters. Every process calls it, and all raise together.

    Args:
        model: after ``done`` steps.
        layout: its first process of each copy is a multiple of ``shard``.

    Raises:
        ReplicaError: they differ; which process, and in what.
    """
    own = checksums(model).tolist(), socket.gethostname()
    every = world.gather(own)
    names = [name for name, _ in model.named_parameters()]
    found = differing([sums for sums, _ in every], names, layout.shard)
    if not found:
        return
    hosts = [host for _, host in every]
    sure = world.size // layout.shard > 2
    raise ReplicaError(
        f"after step {done - 1} copies of the weights differ that ought to be the same bits: "
        f"{_told(found, hosts)}. "
        + ("" if sure else "Of two copies nobody can say which one is wrong. ")
        + "So a device or its memory went wrong, or a sum over processes is not the same "
        "everywhere: go on from a checkpoint of before with --resume, without that machine"
    )


def differing(
    every: Sequence[Sequence[int]], names: Sequence[str], parts: int
) -> dict[int, list[str]]:
    """Parameters by the rank whose checksum is not that of most, of those that hold the same part.

    Args:
        every: checksums of each rank.
        names: of the parameters.
        parts: ranks that hold one copy together. Where no value is that of most, all are named.
    """
    found: dict[int, list[str]] = {}
    for part in range(parts):
        ranks = range(part, len(every), parts)
        for place, name in enumerate(names):
            values = [every[rank][place] for rank in ranks]
            (common, times), *others = Counter(values).most_common()
            if not others:
                continue
            unsure = times == others[0][1]
            for rank in ranks:
                if unsure or every[rank][place] != common:
                    found.setdefault(rank, []).append(name)
    return found


def _told(found: Mapping[int, Sequence[str]], hosts: Sequence[str]) -> str:
    return "; ".join(
        f"rank {rank} on {hosts[rank]} in {', '.join(names[:_SHOWN])}"
        + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
        for rank, names in sorted(found.items())
    )
