"""Which processes hold one copy of the states together: ``--shard`` and ``--reshard``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from torch import nn

from videomae_fast.errors import UsageError
from videomae_fast.training.checkpoint import Log
from videomae_fast.training.parallel.world import World

_SMALL: Final = 0.1
"""Share of a GPU's memory up to which "auto" keeps gathered weights until backward."""


@dataclass(frozen=True)
class Layout:
    """Where weights, gradients and moments lie.

    Attributes:
        shard: processes that hold one copy together; 1: a whole one on each.
        reshard: gathered weights are freed after each block and gathered again for backward.
    """

    shard: int = 1
    reshard: bool = False

    @property
    def sharded(self) -> bool:
        """Whether a process holds less than everything."""
        return self.shard > 1


def layout_of(shard: str, world: World) -> int:
    """Processes that hold one copy together.

    Args:
        shard: "none", "node" (those of a machine), "all", or their number.

    Raises:
        UsageError: the processes can't be parts of that many.
    """
    if shard == "none" or world.size == 1:
        return 1
    if shard == "all":
        return world.size
    number = world.per_node if shard == "node" else int(shard)
    if number < 1 or world.size % number:
        possible = [str(n) for n in range(1, world.size + 1) if world.size % n == 0]
        raise UsageError(
            f"shard {shard}: {world.size} processes can't be copies of {number} each; possible are "
            f"{', '.join(possible)}"
        )
    return number


def choose_layout(
    shard: str, reshard: str, model: nn.Module, world: World, *, bf16: bool, log: Log
) -> Layout:
    """The layout of a run, "auto" resolved.

    Args:
        shard, reshard: as the settings say them.
        model: on any device.
        world: the processes.
        bf16: what is gathered is in bf16, else in fp32.
        log: is told what it is, where something is sharded.

    Raises:
        UsageError: the processes can't be parts of that many.
    """
    parts = layout_of(shard, world)
    if parts == 1:
        if shard not in ("none", "1"):
            log(f"shard {shard}: there is one process a copy, so nothing is sharded")
        return Layout()
    gathered = sum(p.numel() for p in model.parameters()) * (2 if bf16 else 4)
    again, why = reshard == "yes", "asked for"
    if reshard == "auto":
        memory = world.memory
        again = memory is not None and gathered > _SMALL * memory
        why = f"gathered they take {gathered / 1e9:.2f} GB"
    log(
        f"states sharded over {parts} processes, copies: {world.size // parts}; gathered weights "
        "are "
        f"{'freed after each block' if again else 'kept until backward'}: {why}"
    )
    return Layout(parts, again)
