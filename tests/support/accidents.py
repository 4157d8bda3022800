"""The command line in a rank to which something happens at a given moment: a target for ``Host``.

What polls for a moment from outside misses it on a busy machine; this is in the rank itself.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from videomae_fast import cli
from videomae_fast.models.transformer import Block
from videomae_fast.training.checkpoint import sharded
from videomae_fast.training.step import TrainStep

TARGET = "tests.support.accidents:run"


@dataclass(frozen=True)
class Accident:
    """What happens, to whom and when.

    Attributes:
        what: "kill" and "stop" are signals, SIGTERM is "end"; "orphan" kills the launcher, and
            "wait" waits, for the signal that comes of it or from it; "nan" is an input of a block.
        rank: to whom.
        step: number of the step in which it happens.
        commit: it happens when every process has written its part of the checkpoint of so many
            steps, and its folder has not got its name yet; else when the step begins.
        life: how often torchrun has started the ranks again before it happens.
    """

    what: Literal["kill", "stop", "end", "orphan", "wait", "nan"]
    rank: int
    step: int
    commit: bool = False
    life: int = 0

    def arrange(self) -> None:
        """Sees to it, in every rank; nothing happens in the others and in other lives."""
        here = os.environ["RANK"], os.environ["TORCHELASTIC_RESTART_COUNT"]
        if here != (str(self.rank), str(self.life)):
            return
        if self.commit:
            commit = sharded.commit

            def committed(partial: Path, folder: Path, *rest: Any) -> None:
                if folder.name == f"step-{self.step:08d}":
                    self._happen()
                commit(partial, folder, *rest)

            sharded.commit = committed
            return
        forward_backward: Callable[..., None] = TrainStep.forward_backward

        def made(this: TrainStep[Any], batch: Any, *, step: int, micro: int) -> None:
            if (step, micro) == (self.step, 0):
                self._happen(this.model)
            forward_backward(this, batch, step=step, micro=micro)

        TrainStep.forward_backward = made  # type: ignore[method-assign]

    def _happen(self, model: nn.Module | None = None) -> None:
        if self.what == "nan":
            assert model is not None
            block = next(module for module in model.modules() if isinstance(module, Block))
            block.register_forward_pre_hook(_spoil)
            return
        if self.what in ("orphan", "wait"):
            if self.what == "orphan":
                os.kill(os.getppid(), signal.SIGKILL)
            signal.pause()
            return
        names = {"kill": signal.SIGKILL, "stop": signal.SIGSTOP, "end": signal.SIGTERM}
        os.kill(os.getpid(), names[self.what])


def _spoil(_: nn.Module, given: tuple[Any, ...]) -> tuple[Any, ...]:
    first, *rest = given
    assert isinstance(first, torch.Tensor)
    return (first * float("nan"), *rest)


def words_of(words: list[str], *accidents: Accident, without: str | None = None) -> list[str]:
    """What :func:`run` gets for a command line and what is to happen in it. without: a variable
    that the launcher does not set."""
    return [json.dumps([asdict(one) for one in accidents]), without or "", *words]


def run(words: list[str]) -> int:
    """The command line, with accidents; see :func:`words_of`."""
    for one in json.loads(words[0]):
        Accident(**one).arrange()
    os.environ.pop(words[1], None)
    return cli.main(words[2:])
