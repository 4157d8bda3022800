"""Writing a run's state: the one place that says what a checkpoint holds."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from videomae_fast.training import checkpoint
from videomae_fast.training.checkpoint.sharded import ShardedWriter
from videomae_fast.training.folder import RunFolder
from videomae_fast.training.optimizer import optimizer_state
from videomae_fast.training.parallel.world import World
from videomae_fast.training.step import TrainStep
from videomae_fast.training.task import Task


class Saver:
    """Saves the state of a step's model and optimizer.

    Args:
        init: the record of the weights that the run began from.
        saved_step: steps done in the checkpoint that is on the disk already.
    """

    def __init__(
        self,
        task: Task[Any],
        step: TrainStep[Any],
        folder: RunFolder,
        world: World,
        *,
        init: Mapping[str, Any] | None,
        saved_step: int | None,
    ) -> None:
        self.task, self.step, self.folder, self.world = task, step, folder, world
        self.init, self.saved_step = init, saved_step
        self._ahead = ShardedWriter(world) if step.layout.sharded else None

    def save(self, done: int, *, wait: bool = True) -> None:
        """The state in which ``done`` steps are done, unless that is on the disk already.

        Args:
            wait: until it is on the disk; else, where the state is sharded, a copy of it is taken,
                and the next save, or :meth:`finish`, waits.
        """
        if done != self.saved_step:
            self.folder.check()
            # Before a checkpoint that stands for these steps, in all processes
            self.folder.sync()
            self.world.agree(0)
            folder = self.folder.checkpoint(done)
            self._write(folder, done, keep=self.task.settings.keep_checkpoints)
            self.saved_step = done
        if wait:
            self.finish()

    def write(self, folder: Path, done: int) -> None:
        """Writes the state to another folder than that of its step; it is there afterwards."""
        self._write(folder, done, keep=None)
        self.finish()

    def finish(self) -> None:
        """Waits for what is being written.

        Raises:
            CheckpointError: it can't be.
        """
        if self._ahead is not None:
            self._ahead.wait()
            self.world.agree(0)

    def _write(self, folder: Path, done: int, *, keep: int | None) -> None:
        """Of a state that is not sharded the main process writes all; the others wait, else their
        end could cut it short."""
        model: nn.Module = self.step.model
        state = {
            "step": done,
            "config": self.task.config,
            **self.task.shape(model),
            "data": self.task.data,
            "init": self.init,
            "micro_batches": [self.world.size, self.task.settings.accumulation],
        }
        with self.step.whole_weights():
            moments = optimizer_state(model, self.step.optimizer)
            if self._ahead is not None:
                self._ahead.start(folder, model.state_dict(), moments, state, keep=keep)
            elif self.world.is_main:
                checkpoint.save(folder, model.state_dict(), moments, state, keep=keep)
        self.world.agree(0)
