"""What each process of a run does, side by side: who waits for data, and who is slow.

In synchronous steps all processes take the same time, since they wait for each other. So what is
compared is what a process does alone: waiting for its data, and the forward pass, which has no
collective in it but where weights are sharded.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any, Final

import torch

from videomae_fast.data.files import AppendFile, keep_steps_before
from videomae_fast.training.checkpoint import Log
from videomae_fast.training.parallel.world import World

SLOW: Final = 1.15
"""Times the median forward pass, from which on a process counts as slow."""
LOOKS: Final = 5
"""In a row in which it has to be, before it is told."""


class Stopwatch:
    """Adds up the time of what is done while it is entered, on the device, without waiting for it.

    active: else it does nothing.
    """

    def __init__(self, device: torch.device, *, active: bool) -> None:
        self._gpu, self._active = device.type == "cuda", active
        self._begins: list[Any] = []
        self._ends: list[Any] = []

    def __enter__(self) -> None:
        if self._active:
            self._begins.append(self._now())

    def __exit__(self, *_: object) -> None:
        if self._active:
            self._ends.append(self._now())

    def seconds(self) -> float:
        """The sum since the last call; the device has done it all."""
        pairs = list(zip(self._begins, self._ends, strict=True))
        self._begins, self._ends = [], []
        if self._gpu:
            return float(sum(begin.elapsed_time(end) for begin, end in pairs)) / 1e3
        return float(sum(end - begin for begin, end in pairs))

    def _now(self) -> Any:
        if not self._gpu:
            return perf_counter()
        event: Any = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record()
        return event


@dataclass(frozen=True)
class Figures:
    """Of one process since the last look.

    host: its machine; data_wait: share of the time; forward: seconds of a step's forward passes;
    memory: peak bytes of its GPU, 0 without one; step_time: seconds of a step by its host's clock,
    which waits for nothing; decode, crop: seconds of its loader processes, all together, assemble:
    of joining batches, and frames of clips that were decoded on the CPU, on the device, and that
    came from the cache, since the last progress line.
    """

    host: str
    data_wait: float
    forward: float
    memory: int
    step_time: float = 0.0
    decode: float = 0.0
    crop: float = 0.0
    assemble: float = 0.0
    frames_cpu: int = 0
    frames_device: int = 0
    frames_cached: int = 0


class PerRank:
    """``ranks.jsonl``: a line per look, written by the main process of several.

    Args:
        path: of the file.
        start: steps done; later lines are dropped, as these steps are made again.
        log: is told of a process that stays slow.
    """

    def __init__(self, path: Path, world: World, start: int, log: Log) -> None:
        self.world, self.log = world, log
        self.file: AppendFile | None = None
        if world.is_main and world.size > 1:
            keep_steps_before(path, start, lambda line: int(json.loads(line)["step"]))
            self.file = AppendFile(path)
        self._slow: dict[int, int] = {}

    def look(
        self,
        done: int,
        steps: int,
        speed: Mapping[str, float],
        forward: float,
        loading: Mapping[str, Any],
        clips: int,
    ) -> None:
        """Every process calls it.

        Args:
            done: steps of the run.
            steps: since the last look.
            speed: in these.
            forward: seconds of this process's passes in these.
            loading: seconds of its pipeline's stages, and frames.
            clips: of a step.
        """
        if self.world.size == 1:
            return
        memory = 0
        if self.world.device.type == "cuda":
            memory = torch.cuda.max_memory_allocated(self.world.device)
        own = Figures(
            socket.gethostname(),
            speed["data_wait"],
            forward / max(1, steps),
            memory,
            clips / speed["clips_per_s"] if speed["clips_per_s"] else 0.0,
            **loading,
        )
        every = self.world.gather(own)
        if self.file is not None:
            self.file.write(json.dumps({"step": done - 1, **summary(every)}) + "\n")
            for line in self.stragglers(every):
                self.log(line)

    def stragglers(self, every: Sequence[Figures]) -> list[str]:
        """What is said of the processes that were slow in :data:`LOOKS` looks running."""
        limit = SLOW * median(one.forward for one in every)
        slow = {rank for rank, one in enumerate(every) if one.forward > limit}
        self._slow = {rank: self._slow.get(rank, 0) + 1 for rank in slow}
        return [
            f"rank {rank} on {every[rank].host} is slow: its forward pass takes "
            f"{every[rank].forward:.3f} s, the median {limit / SLOW:.3f} s, {LOOKS} looks running"
            for rank, looks in sorted(self._slow.items())
            if looks == LOOKS
        ]

    def close(self) -> None:
        if self.file is not None:
            self.file.close()


def summary(every: Sequence[Figures]) -> dict[str, Any]:
    """Least, median and largest value of each figure, and whose the largest is."""
    found: dict[str, Any] = {}
    for name in (one.name for one in fields(Figures) if one.name != "host"):
        values = [getattr(one, name) for one in every]
        worst = values.index(max(values))
        found[name] = {
            "min": min(values),
            "median": median(values),
            "max": values[worst],
            "rank": worst,
            "host": every[worst].host,
        }
    return found
