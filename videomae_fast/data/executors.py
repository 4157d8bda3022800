"""Shards of a list's work handed to machines by Ray: the function of a shard stays what it is."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import islice
from typing import Any, Final, Protocol, TypeVar

from videomae_fast.data.errors import sentence
from videomae_fast.data.shards import Shard
from videomae_fast.errors import BackendUnavailableError, UsageError, VideoMAEFastError
from videomae_fast.extras import install
from videomae_fast.progress import ProgressLine

Result = TypeVar("Result")

RETRIES: Final = 4
"""Times that a shard whose process was lost is begun again."""

AT_ONCE: Final = 2
"""Shards handed over for each that can be in work: none is cancelled after an error, since a task
that ends while it is cancelled aborts this process (Ray 2.60: "Tried to complete task that was not
pending")."""

PER_SLOT: Final = 4
"""Shards for each that can be in work at a time: what is slow, or lost, is a small part."""


class Executor(Protocol):
    """Does shards of a work, wherever it has room for them."""

    def shards(self) -> int:
        """How many shards it would make of a long list."""
        ...

    def run(self, function: Callable[[Shard], Result], count: int) -> list[Result]:
        """Does all shards of a work.

        Args:
            function: makes shard (i, n). What it leaves in files goes on after a loss of its
                process: it may be called again.
            count: of shards.

        Returns:
            What the function gave, in the order of the shards.

        Raises:
            VideoMAEFastError: a shard was lost too often; or what a shard raised.
        """
        ...


@dataclass(frozen=True)
class RayExecutor:
    """Shards as tasks of a Ray cluster: of ``RAY_ADDRESS``, or of this machine alone.

    Tasks run in this process's working folder, which, as the list and what it names, has to be
    there on all machines; so has this package. After an error no more shards are begun; those that
    were handed over end with this process, or by themselves.

    Attributes:
        cpus: that a shard takes, all on one machine.
        gpus: likewise.
        progress: from the number of shards to a line to keep up.
    """

    cpus: int = 1
    gpus: float = 0.0
    progress: Callable[[int], ProgressLine] | None = None

    def shards(self) -> int:
        """As many as give each room in the cluster a few.

        Raises:
            BackendUnavailableError: Ray is not installed.
            UsageError: no machine of the cluster has what a shard takes.
        """
        return PER_SLOT * self._room(_started())

    def run(self, function: Callable[[Shard], Result], count: int) -> list[Result]:
        """See :class:`Executor`.

        Raises:
            BackendUnavailableError, UsageError: as :meth:`shards`.
            VideoMAEFastError: a shard was lost too often; or what a shard raised.
        """
        ray = _started()
        most = AT_ONCE * self._room(ray)
        task = ray.remote(
            num_cpus=self.cpus, num_gpus=self.gpus, max_retries=RETRIES, retry_exceptions=False
        )(_in_folder)
        folder = os.getcwd()
        parts = iter(range(1, count + 1))
        waiting: dict[Any, int] = {}
        found: dict[int, Result] = {}
        line = None if self.progress is None else self.progress(count)
        while len(found) < count:
            for part in islice(parts, most - len(waiting)):
                waiting[task.remote(function, folder, (part, count))] = part
            (ready,), _ = ray.wait(list(waiting), num_returns=1)
            part = waiting.pop(ready)
            found[part] = _result(ray, ready, part, count)
            if line is not None:
                line.update(len(found))
        if line is not None:
            line.finish(len(found))
        return [found[part] for part in range(1, count + 1)]

    def _room(self, ray: Any) -> int:
        """Shards that can be in work at a time."""
        slots, most = 0, 0
        for node in ray.nodes():
            if node["Alive"]:
                has = node["Resources"]
                most = max(most, int(has.get("CPU", 0)))
                room = [int(has.get("CPU", 0) // self.cpus)]
                room += [int(has.get("GPU", 0) // self.gpus)] if self.gpus else []
                slots += min(room)
        if not slots:
            gpus = f" and {self.gpus:g} GPUs" if self.gpus else ""
            raise UsageError(
                f"no machine of the Ray cluster has {self.cpus} CPUs{gpus} for a shard (the most "
                f"are {most} CPUs): ask for less (--workers)"
            )
        return slots


def cluster_gpus() -> int:
    """GPUs of the Ray cluster.

    Raises:
        BackendUnavailableError: Ray is not installed, or can't be started or reached.
    """
    return int(_started().cluster_resources().get("GPU", 0))


def _started() -> Any:
    """Ray, connected.

    Raises:
        BackendUnavailableError: it is not installed, or can't be started or reached.
    """
    if find_spec("ray") is None:
        raise BackendUnavailableError(f"Ray is not installed: {install('ray')}")
    try:
        import ray

        if not ray.is_initialized():
            ray.init(include_dashboard=False)
    except Exception as error:  # its errors are of several kinds
        raise BackendUnavailableError(f"Ray can't be started: {sentence(error)}") from error
    return ray


def _in_folder(function: Callable[[Shard], Result], folder: str, shard: Shard) -> Result:
    """What a task does: relative paths mean what they mean where the command was given."""
    try:
        os.chdir(folder)
    except OSError as error:
        raise UsageError(
            f"{folder}: can't be entered on {os.uname().nodename} ({error.strerror}): all machines "
            "of the Ray cluster need the folder that the command is given in"
        ) from None
    return function(shard)


def _result(ray: Any, ready: Any, part: int, count: int) -> Any:
    """What a task gave, or its own error as if it had been raised here."""
    try:
        return ray.get(ready)
    except ray.exceptions.RayTaskError as error:
        cause = error.cause
        if isinstance(cause, VideoMAEFastError):
            raise cause from None
        raise
    except ray.exceptions.RayError as error:
        raise VideoMAEFastError(
            f"shard {part} of {count} was lost {1 + RETRIES} times ({sentence(error)}): look at "
            "the machine's memory, and at Ray's logs. What is done is kept: the same command goes "
            "on there"
        ) from error
