"""Options of the commands whose work comes in shards: one of them, or all by an executor."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from videomae_fast.cli.list_options import shard
from videomae_fast.errors import UsageError

if TYPE_CHECKING:
    from videomae_fast.data.executors import RayExecutor


def add_shard_arguments(
    group: argparse._ActionsContainer, help: str, default: tuple[int, int] | None
) -> None:
    """``--shard`` with what it means here, ``--executor`` and ``--shards``."""
    group.add_argument("--shard", type=shard, default=default, metavar="I/N", help=help)
    group.add_argument(
        "--executor",
        choices=("local", "ray"),
        default="local",
        help="ray: all shards, as tasks of a Ray cluster (of RAY_ADDRESS, else of this machine), "
        "then what is to be done with them; the same files as without (default: local)",
    )
    group.add_argument(
        "--shards",
        type=int,
        metavar="N",
        help="how many, with --executor ray (default: 4 for each that the cluster has room for)",
    )


def check_shard_arguments(args: argparse.Namespace) -> None:
    """Raises UsageError for what does not go together."""
    if args.executor == "local":
        if args.shards is not None:
            raise UsageError("--shards goes with --executor ray; --shard I/N makes one of them")
        return
    if args.shard not in (None, (1, 1)):
        raise UsageError("--shard is one part, and --executor ray makes all: give one of them")
    if args.shards is not None and args.shards < 1:
        raise UsageError(f"--shards must be 1 or more, not {args.shards}")


def ray_executor(cpus: int, gpus: float = 0.0) -> RayExecutor:
    """What ``--executor ray`` means, with a line that is kept up."""
    from videomae_fast.data.executors import RayExecutor
    from videomae_fast.progress import ProgressLine

    return RayExecutor(cpus, gpus, lambda total: ProgressLine(total, "shards"))
