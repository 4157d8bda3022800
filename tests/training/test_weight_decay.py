"""Weight decay that goes from step to step: in the groups that decay, and after a resume."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.support.runs import interrupt_after, losses, quiet
from videomae_fast.recipes import PretrainConfig
from videomae_fast.training import pretrain
from videomae_fast.training.errors import InterruptedRunError
from videomae_fast.training.optimizer import make_optimizer, set_weight_decay
from videomae_fast.training.schedule import weight_decays
from videomae_fast.training.step import TrainStep

Make = Callable[..., PretrainConfig]


def test_only_groups_that_decay_change() -> None:
    one, other = (torch.nn.Parameter(torch.ones(2)) for _ in range(2))
    groups = [{"params": [one], "weight_decay": 0.1}, {"params": [other], "weight_decay": 0.0}]
    optimizer = make_optimizer(groups, betas=(0.9, 0.95))
    for decay in (0.0, 0.3):  # a decay that reached 0 goes on
        set_weight_decay(optimizer, decay)
        assert [group["weight_decay"] for group in optimizer.param_groups] == [decay, 0.0]
    for group in optimizer.param_groups:
        group["lr"] = 0.5
    one.grad, other.grad = torch.zeros(2), torch.zeros(2)
    optimizer.step()
    assert one.tolist() == pytest.approx([1 - 0.5 * 0.3] * 2)
    assert other.tolist() == [1, 1]


def test_each_step_of_a_run_has_its_own(
    tiny: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny(weight_decay=0.1, weight_decay_end=0.9)
    seen: list[list[float]] = []
    update = TrainStep.update

    def watched(self: TrainStep[Any], rate: float) -> torch.Tensor:
        seen.append([group["weight_decay"] for group in self.optimizer.param_groups])
        return update(self, rate)

    with monkeypatch.context() as patch:
        patch.setattr(TrainStep, "update", watched)
        pretrain(config, output=tmp_path / "whole", log=quiet)
    decays = weight_decays(config.schedule, config.optim, 2)
    assert seen == [[decays(step), 0.0] for step in range(8)]
    with monkeypatch.context() as patch:
        interrupt_after(patch, 4, lambda: os.kill(os.getpid(), signal.SIGTERM))
        with pytest.raises(InterruptedRunError):
            pretrain(config, output=tmp_path / "stopped", log=quiet)
    pretrain(config, output=tmp_path / "stopped", log=quiet)
    assert losses(tmp_path / "stopped") == losses(tmp_path / "whole")
    pretrain(tiny(weight_decay=0.1), output=tmp_path / "constant", log=quiet)
    assert losses(tmp_path / "constant")[-1] != losses(tmp_path / "whole")[-1]
