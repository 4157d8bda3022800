"""Writing a run's state: the one place that says what a checkpoint holds."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from videomae_fast.training import checkpoint
from videomae_fast.training.folder import RunFolder
from videomae_fast.training.optimizer import optimizer_state
from videomae_fast.training.parallel.fsdp import whole_tensors
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

    def save(self, done: int) -> None:
        """The state in which ``done`` steps are done, unless that is on the disk already."""
        if done == self.saved_step:
            return
        self.folder.check()
        # Before a checkpoint that stands for these steps, in all processes
        self.folder.sync()
        self.world.agree(0)
        self.write(self.folder.checkpoint(done), done, keep=self.task.settings.keep_checkpoints)
        self.saved_step = done

    def write(self, folder: Path, done: int, *, keep: int | None = None) -> None:
        """The main process writes; the others wait, else their end could cut it short."""
        model: nn.Module = self.step.model
        with self.step.whole_weights():
            moments = optimizer_state(model, self.step.optimizer)
            every = whole_tensors(model.state_dict(), self.world)
            moments = whole_tensors(moments, self.world)
            if self.world.is_main:
                state = {
                    "step": done,
                    "config": self.task.config,
                    **self.task.shape(model),
                    "data": self.task.data,
                    "init": self.init,
                }
                checkpoint.save(folder, every, moments, state, keep=keep)
        self.world.agree(0)
