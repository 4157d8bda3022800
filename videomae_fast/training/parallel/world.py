"""The processes of a run: which one this is, its device, and what they agree on.

Two groups exist with several processes: the default one (NCCL on GPUs, gloo on CPUs) carries
gradients and losses; the control group (gloo) carries what hosts have to agree on, so that
agreeing never waits for a device.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import PrefixStore, Store, rendezvous  # type: ignore[attr-defined]
from torch.distributed.distributed_c10d import _set_pg_timeout

from videomae_fast.data.beside import tell
from videomae_fast.errors import UsageError
from videomae_fast.training.errors import RankFailedError
from videomae_fast.training.parallel.nodes import Seat, processes_per_node
from videomae_fast.training.parallel.starts import name_of_start
from videomae_fast.training.parallel.watch import Watch
from videomae_fast.training.signals import StopRequest

_START_SECONDS: Final = 1800.0
"""What processes wait for each other until the first step is done: lists are read, models built and
compiled, validations made up."""


@dataclass(frozen=True)
class World:
    """This process among those of the run.

    rank, size: of all processes; device: this process's; control: the gloo group, and store: what
    the processes have in common, None where there is one process; seats: where each process is;
    asked: whether this one is asked to stop.
    """

    rank: int
    size: int
    device: torch.device
    control: dist.ProcessGroup | None = None
    store: Store | None = None
    seats: tuple[Seat, ...] = ()
    watch: Watch | None = None
    groups: list[dist.ProcessGroup | None] = field(default_factory=list, compare=False)
    asked: StopRequest = field(default_factory=StopRequest, compare=False)

    def gives_up(self) -> bool:
        """Whether this process is to wait for data no more, since it is asked to stop."""
        return bool(self.asked.signum) and not self.asked.held

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    @property
    def per_node(self) -> int:
        """Processes of each node.

        Raises:
            UsageError: nodes have different numbers of them, or it is not known which these are.
        """
        return processes_per_node(self.seats)

    @property
    def memory(self) -> int | None:
        """Bytes of this process's GPU; None without one."""
        if self.device.type != "cuda":
            return None
        return int(torch.cuda.get_device_properties(self.device).total_memory)

    @staticmethod
    def start(device: str = "auto") -> World:
        """Joins the processes that torchrun started, or is the only one.

        device: "auto", "cpu" or "cuda".

        Raises:
            UsageError: no GPU where one is asked for, or fewer GPUs than processes; or what the
                launcher says of this process can't be.
            RankFailedError: the others can't be reached.
        """
        size = _told("WORLD_SIZE", least=1) or 1
        if size == 1:
            tell(None)
            return World(0, 1, _device(device, _told("LOCAL_RANK") or 0))
        rank, local = _told("RANK"), _told("LOCAL_RANK")
        per_node = _told("LOCAL_WORLD_SIZE", least=1)
        if rank is None or rank >= size:
            has = "no RANK" if rank is None else f"RANK {rank}"
            raise UsageError(
                f"the environment has WORLD_SIZE {size} and {has}: start processes with torchrun, "
                f"or give each its number from 0 to {size - 1}"
            )
        chosen = _device(device, local)
        backend, device_id = ("nccl", chosen) if chosen.type == "cuda" else ("gloo", None)
        try:
            every, _, _ = next(rendezvous("env://"))
            store = PrefixStore(name_of_start(every, rank, size, _START_SECONDS), every)
            patience = timedelta(seconds=_START_SECONDS)
            dist.init_process_group(
                backend,
                store=store,
                rank=rank,
                world_size=size,
                device_id=device_id,
                timeout=patience,
            )
            control = dist.new_group(backend="gloo", timeout=patience, group_desc="control")
            seats: list[Any] = [None] * size
            dist.all_gather_object(seats, Seat.here(per_node), group=control)
        except (RuntimeError, ValueError) as error:
            raise RankFailedError(
                f"rank {rank} can't join the {size} processes of the run: "
                f"{str(error).strip().splitlines()[0]}"
            ) from error
        tell(sum(seat.machine == seats[rank].machine for seat in seats))
        watch = Watch(store, rank, size)
        return World(rank, size, chosen, control, store, tuple(seats), watch, [None, control])

    def close(self, *, together: bool) -> None:
        """Leaves the others; with `together`, when all of them are here.

        A process that ends while others still talk to it makes them abort at their end.
        """
        if self.control is not None:
            if together:
                with suppress(RuntimeError):  # one was killed meanwhile; all was done
                    dist.barrier(group=self.control)
            dist.destroy_process_group()

    @contextmanager
    def watched(self, folder: Path, seconds: float) -> Iterator[None]:
        """While entered, a process that waits too long for others says for whom.

        Args:
            folder: for its reports.
            seconds: limit of a wait, after which it is an error, from :meth:`begun` on.
        """
        if self.watch is None:
            yield
            return
        with self.watch.on(folder, seconds, max(seconds, _START_SECONDS)):
            self.agree(0)  # all have said where they are
            yield

    def begun(self, seconds: float) -> None:
        """The first step is done: from here on processes wait so long at most for each other."""
        for group in self.groups:
            _set_pg_timeout(timedelta(seconds=seconds), group)
        if self.watch is not None:
            self.watch.begun()

    def doing(self, what: str, *, waits: bool = False) -> AbstractContextManager[None]:
        """Notes what is done while it is entered, as the others are told when they wait for this
        process. waits: it may itself be waiting for them."""
        return nullcontext() if self.watch is None else self.watch.doing(what, waits=waits)

    @property
    def patience(self) -> float | None:
        """Seconds that a process waits for others now; None where nothing limits it."""
        return None if self.watch is None else self.watch.limit or None

    def waits_for(self) -> str | None:
        """Who is silent or behind, in a sentence, where this process waits for too long."""
        return None if self.watch is None else self.watch.told

    def at(self, step: int) -> None:
        """Notes the step that is made."""
        if self.watch is not None:
            self.watch.step = step

    def add_up(self, values: Tensor) -> Tensor:
        """Sums a device tensor over the processes, in place, without waiting for it."""
        if self.size > 1:
            dist.all_reduce(values)
        return values

    def agree(self, value: int) -> int:
        """The largest of the processes' numbers, on the host."""
        if self.control is None:
            return value
        tensor = torch.tensor(value)
        with self.doing("agreeing", waits=True):
            dist.all_reduce(tensor, dist.ReduceOp.MAX, group=self.control)
        return int(tensor)

    def total(self, value: int) -> int:
        """The sum of the processes' numbers, on the host."""
        if self.control is None:
            return value
        tensor = torch.tensor(value)
        with self.doing("adding up", waits=True):
            dist.all_reduce(tensor, group=self.control)
        return int(tensor)

    def from_main(self, value: Any) -> Any:
        """The main process's value, everywhere."""
        if self.control is None:
            return value
        box = [value]
        with self.doing("hearing from rank 0", waits=True):
            dist.broadcast_object_list(box, src=0, group=self.control)
        return box[0]

    def gather(self, value: Any) -> list[Any]:
        """Every process's value, in order of rank, everywhere."""
        if self.control is None:
            return [value]
        box: list[Any] = [None] * self.size
        with self.doing("gathering", waits=True):
            dist.all_gather_object(box, value, group=self.control)
        return box


def videos_per_micro_batch(videos_per_step: int, world: int, accumulation: int) -> int:
    """Places for videos in one process's micro-batch: with all of them together, enough for a step.

    What is more than its videos stays empty: places of weight 0, which change nothing.
    """
    return -(-videos_per_step // (world * accumulation))


def _told(name: str, *, least: int = 0) -> int | None:
    """A number that the launcher gave this process; None where it gave none."""
    word = os.environ.get(name)
    if word is None:
        return None
    if not word.isdecimal() or int(word) < least:
        raise UsageError(
            f"the environment has {name} {word!r}, which is no number from {least} on: start "
            "processes with torchrun, or set it right"
        )
    return int(word)


def _device(name: str, local_rank: int | None) -> torch.device:
    available = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "cpu" or (name == "auto" and not available):
        return torch.device("cpu")
    if not available:
        raise UsageError(
            "device cuda: torch sees no GPU here (videomae-fast doctor says why); use --device cpu"
        )
    if local_rank is None:
        raise UsageError(
            "the environment has no LOCAL_RANK, so it is not known which of its machine's GPUs is "
            "this process's: start processes with torchrun, or set it for each"
        )
    if local_rank >= available:
        raise UsageError(
            f"process {local_rank} of this machine has no GPU: torch sees {available}; start at "
            "most that many processes per machine"
        )
    device = torch.device("cuda", local_rank)
    torch.cuda.set_device(device)
    return device
