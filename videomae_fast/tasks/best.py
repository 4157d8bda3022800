"""The best weights of a run, and those that were the best before, as far as it can go back."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from videomae_fast.data.files import make_folder
from videomae_fast.interop import ModelWeights, write_weights
from videomae_fast.tasks.history import Validations
from videomae_fast.tasks.validation import BEST
from videomae_fast.training.checkpoint import checkpoints

FOLDER: Final = "best"
"""Of the weights by the steps after which they were the best; the newest are also BEST."""

_NAME: Final = re.compile(r"step-(\d{8,})\.safetensors")


class BestWeights:
    """``best.safetensors`` of a run: the weights of the history's last line that has a best.

    A run that goes on from an earlier checkpoint forgets the lines behind it, and gets back the
    weights that were the best until there. So a best stays in ``best/`` while a checkpoint is there
    at which it was the best; where files can be linked, no value lies on the disk twice.

    Args:
        output: the run's folder.
    """

    def __init__(self, output: Path) -> None:
        self.path, self._folder = output / BEST, output / FOLDER

    def write(self, step: int, weights: ModelWeights) -> None:
        """Puts the weights after a number of steps on the disk, before a line says so.

        Raises:
            OutputError: the run's folder is not there any more.
        """
        make_folder(self._folder, parents=False)
        partial = self._folder / f"new-{BEST}"
        partial.unlink(missing_ok=True)
        write_weights(weights, partial, "ours")
        os.replace(partial, self._of(step))

    def follow(self, history: Validations[Any], checkpoints: Iterable[int]) -> None:
        """Shows the history's best, and removes what the run can't go back to.

        Args:
            history: whose last best is on the disk.
            checkpoints: steps that the run can go back to.
        """
        best = history.best_until()
        if best is None:
            self.path.unlink(missing_ok=True)
        else:
            self._show(self._of(best))
        needed = {best, *(history.best_until(step) for step in checkpoints)}
        for file in self._folder.glob("step-*.safetensors"):
            named = _NAME.fullmatch(file.name)
            if named is not None and int(named[1]) not in needed:
                file.unlink()

    def return_to(self, step: int, history: Validations[Any], *, validates: bool) -> list[str]:
        """Drops what lies behind a step from the history, and finds the best until there.

        Args:
            step: that the run goes on from.
            history: of the run, written anew where lines are dropped.
            validates: whether the run is about to be validated at `step`.

        Returns:
            What to tell.
        """
        newest = history.best_until()
        history.keep(lambda one: one.step <= step)
        told = []
        while (best := history.best_until()) is not None and not self._of(best).exists():
            if best == newest and self.path.exists():  # a run that kept no other ones
                make_folder(self._folder)
                _link(self.path, self._of(best))
            elif best == step and validates:
                history.keep(lambda one: one.step < step)
            else:
                history.forget(best)
                told.append(
                    f"the weights after {best} steps, the best until step {step}, are not there "
                    f"any more: {BEST} is of another step"
                )
        return told

    def _of(self, step: int) -> Path:
        return self._folder / f"step-{step:08d}.safetensors"

    def _show(self, file: Path) -> None:
        partial = self.path.with_name(f"new-{BEST}")
        partial.unlink(missing_ok=True)
        _link(file, partial)
        os.replace(partial, self.path)
        partial.unlink(missing_ok=True)  # which stays where both are the same file


def saved_steps(output: Path, until: int | None = None) -> list[int]:
    """Steps of a run's checkpoints."""
    steps = [
        int(folder.name.removeprefix("step-")) for folder in checkpoints(output / "checkpoints")
    ]
    return [step for step in steps if until is None or step <= until]


def _link(source: Path, target: Path) -> None:
    """Another name for a file; a copy on file systems without links."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
