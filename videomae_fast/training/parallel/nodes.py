"""Which processes are on a node together: as the launcher says, or else by machines' names."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from videomae_fast.data.lock import boot
from videomae_fast.errors import UsageError


@dataclass(frozen=True)
class Seat:
    """Where a process is.

    Attributes:
        host: name of its machine.
        boot: of its machine, since when it runs: names may be the same on several.
        told: processes of its node, as the launcher says; None where it says nothing. A machine
            may be several nodes.
    """

    host: str
    boot: str
    told: int | None

    @staticmethod
    def here(told: int | None) -> Seat:
        """This process's."""
        return Seat(socket.gethostname(), boot(), told)

    @property
    def machine(self) -> tuple[str, str]:
        return self.host, self.boot


def processes_per_node(seats: Sequence[Seat]) -> int:
    """Processes of each node, of which ranks follow each other.

    Args:
        seats: of all processes, by rank.

    Raises:
        UsageError: nodes have different numbers of them, or ranks go to and fro between nodes.
    """
    nodes = _by_machine(seats) if any(seat.told is None for seat in seats) else _as_told(seats)
    if len({len(node) for node in nodes}) > 1:
        counts = ", ".join(f"{len(node)} on {seats[node[0]].host}" for node in nodes)
        raise UsageError(
            f"shard node: nodes have different numbers of processes ({counts}), so that the states "
            "can't lie on each in the same parts: start as many on each (torchrun "
            "--nproc-per-node), or use shard all, none, or a number of processes"
        )
    return len(nodes[0])


def _by_machine(seats: Sequence[Seat]) -> list[list[int]]:
    """Ranks of each machine."""
    nodes = [list(ranks) for _, ranks in groupby(range(len(seats)), lambda r: seats[r].machine)]
    if len(nodes) > len({seat.machine for seat in seats}):
        raise _to_and_fro(seats)
    return nodes


def _as_told(seats: Sequence[Seat]) -> list[list[int]]:
    """Ranks of each node, by what its first process was told."""
    nodes: list[list[int]] = []
    rank = 0
    while rank < len(seats):
        node = [r for r in range(rank, rank + (seats[rank].told or 1)) if r < len(seats)]
        if any((seats[r].machine, seats[r].told) != (seats[rank].machine, len(node)) for r in node):
            raise _to_and_fro(seats)
        nodes.append(node)
        rank += len(node)
    return nodes


def _to_and_fro(seats: Sequence[Seat]) -> UsageError:
    places = ", ".join(
        f"{rank} on {seat.host}" + ("" if seat.told is None else f" among {seat.told}")
        for rank, seat in enumerate(seats[:8])
    )
    more = ", ..." if len(seats) > 8 else ""
    return UsageError(
        f"shard node: ranks are not numbered node by node ({places}{more}), so it is not known "
        "which of them are one: have the launcher fill a node before it goes to the next (torchrun "
        "does; srun --distribution=block) with LOCAL_WORLD_SIZE as it is, or use shard all, none, "
        "or a number of processes"
    )
