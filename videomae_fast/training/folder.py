"""A run's output folder: its lock, and the files that are written step by step."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from videomae_fast.data.failures import Failure, FailureReport
from videomae_fast.data.files import AppendFile, make_folder, write_lines
from videomae_fast.data.lock import FolderLock
from videomae_fast.training.checkpoint import Log, folder_name
from videomae_fast.training.goodput import Goodput
from videomae_fast.training.metrics import MetricsFile, Number, StepMetrics, TensorBoard
from videomae_fast.training.parallel.world import World
from videomae_fast.training.per_rank import PerRank
from videomae_fast.training.prometheus import PrometheusFile


class RunFolder:
    """What is open in ``output``. The main process holds the lock and writes what is of the whole
    run, every process reports what it could not read.

    Args:
        activity: what the process does there, as another one is told: "pre-trains".
    """

    def __init__(self, path: Path, world: World) -> None:
        self.path, self.world = path, world
        self._lock: FolderLock | None = None
        self._report: FailureReport | None = None
        self._metrics: MetricsFile | None = None
        self._tensorboard: TensorBoard | None = None
        self._prometheus: PrometheusFile | None = None
        self.ranks: PerRank | None = None
        self.goodput: Goodput | None = None
        self._began = time.time()

    def lock(self, activity: str) -> None:
        """Keeps other runs out: of the main process.

        activity: what this one does there, as the others are told: "pre-trains".
        """
        if self.world.is_main:
            self._lock = FolderLock(self.path, activity)

    def begin(
        self,
        start: int,
        *,
        draws_before: int,
        config: Mapping[str, Any],
        tensorboard: str | None,
        prometheus: str | None = None,
        log: Log,
    ) -> int:
        """Opens what is written on, from a step on; lines of later steps are dropped.

        Args:
            start: steps done.
            draws_before: of this process, in these steps.
            config: for ``config.json``.
            tensorboard: prefix of its scalars; None writes none.
            prometheus: file for its text; None writes none.

        Returns:
            Videos of all processes that could not be read before.
        """
        self._report = FailureReport(
            self.path,
            self.world.rank,
            world=self.world.size,
            start_step=start,
            draws_before=draws_before,
        )
        asides = [path for part in self.world.gather(self._report.aside) for path in part]
        if self.world.is_main:
            write_lines(self.path / "config.json", [json.dumps(config, indent=2) + "\n"])
            self._metrics = MetricsFile(self.path / "metrics.jsonl", start)
            asides += [] if self._metrics.aside is None else [self._metrics.aside]
            if tensorboard is not None:
                self._tensorboard = TensorBoard(self.path / "tensorboard", start, tensorboard)
            if prometheus is not None:
                self._prometheus = PrometheusFile(Path(prometheus), str(self.path.absolute()))
                self._prometheus.write({"step": start})
            self.goodput = Goodput(self.path / "goodput.json", start, self._began)
        self.ranks = PerRank(self.path / "ranks.jsonl", self.world, start, log)
        for path in asides:
            log(f"damaged lines behind step {start} are left out; as it was: {path}")
        return self.world.total(self._report.failed)

    def make_checkpoints(self) -> Path:
        """The folder of checkpoints, made by the main process."""
        if self.world.is_main:
            make_folder(self.path / "checkpoints")
            if self.world.size > 1 and self.world.device.type == "cuda":
                make_folder(self.path / "hang")  # NCCL makes none for its reports
        return self.path / "checkpoints"

    def checkpoint(self, step: int) -> Path:
        """Where the state after a number of steps belongs."""
        return self.path / "checkpoints" / folder_name(step)

    @property
    def report(self) -> FailureReport:
        assert self._report is not None, "not yet open"
        return self._report

    def failed(self, failures: Sequence[Failure], *, draws: int) -> None:
        """Reports what of a number of this process's draws could not be read."""
        self.report.add(failures, draws=draws)

    def write(self, steps: Sequence[StepMetrics], speed: Mapping[str, Number]) -> None:
        """The numbers of steps, in order."""
        for one in steps:
            for sink in (self._metrics, self._tensorboard):
                if sink is not None:
                    sink.write(one, **speed)
        if self._metrics is not None:
            self._metrics.flush()
        if self._prometheus is not None and steps:
            self._prometheus.write({**steps[-1].to_dict(), **speed})

    def evaluated(self, step: int, numbers: Mapping[str, float]) -> None:
        """The numbers of an evaluation after a number of steps, for TensorBoard."""
        if self._tensorboard is not None:
            self._tensorboard.write_numbers(step, numbers)

    def check(self) -> None:
        """Raises OutputError where the folder, or a file that is written on, was taken away."""
        if self._lock is not None:
            self._lock.check()
        for written in self._written():
            written.check()

    def sync(self) -> None:
        """Brings what was written to the disk."""
        if self._metrics is not None:
            self._metrics.flush()
        for written in self._written():
            written.sync()

    def close(self) -> None:
        for opened in (self._report, self._metrics, self._tensorboard, self.ranks, self._lock):
            if opened is not None:
                opened.close()

    def _written(self) -> list[AppendFile]:
        return [self.report.file, *([] if self._metrics is None else [self._metrics.file])]
