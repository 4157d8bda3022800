"""Runs of a number of steps, and runs that are made longer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.runs import losses, quiet
from videomae_fast.errors import UsageError
from videomae_fast.recipes import PretrainConfig
from videomae_fast.training import pretrain
from videomae_fast.training.metrics import read_metrics
from videomae_fast.training.schedule import Schedule, learning_rates

Make = Callable[..., PretrainConfig]


def rates_of(config: PretrainConfig) -> Schedule:
    return learning_rates(config.schedule, config.optim, 2)


def rates(output: Path) -> list[float]:
    return [rate for *_, rate in losses(output)]


def test_steps_take_the_place_of_epochs(tiny: Make, tmp_path: Path) -> None:
    said: list[str] = []
    config = tiny(steps=5, epochs=1, warmup_epochs=1)
    result = pretrain(config, output=tmp_path / "steps", log=said.append)
    assert (result.steps, result.checkpoint.name) == (5, "step-00000005")
    lines = read_metrics(tmp_path / "steps" / "metrics.jsonl")
    assert [(line["step"], line["epoch"]) for line in lines] == [
        (0, 0), (1, 0), (2, 1), (3, 1), (4, 2),
    ]  # fmt: skip
    assert any("step 5/5  epoch 3/3" in line for line in said)
    # Whole epochs in steps are the run of these epochs
    pretrain(tiny(steps=8), output=tmp_path / "eight", log=quiet)
    pretrain(tiny(epochs=4), output=tmp_path / "four", log=quiet)
    assert losses(tmp_path / "eight") == losses(tmp_path / "four")


@pytest.mark.parametrize("longer", [{"epochs": 6}, {"steps": 12}])
def test_a_finished_run_is_made_longer(tiny: Make, tmp_path: Path, longer: dict[str, int]) -> None:
    done = pretrain(tiny(epochs=4), output=tmp_path / "one", log=quiet)
    first = losses(tmp_path / "one")
    said: list[str] = []
    config = tiny(**longer)
    pretrain(config, output=tmp_path / "other", resume=str(done.checkpoint), log=quiet)
    result = pretrain(config, output=tmp_path / "one", log=said.append)
    assert result.steps == 12
    found = losses(tmp_path / "one")
    assert [step for step, *_ in found] == list(range(12))
    assert found[:8] == first
    assert found[8:] == losses(tmp_path / "other")
    # The rule: the rates of a run of the new length, from where it went on
    assert rates(tmp_path / "one") == [
        *(rates_of(tiny(epochs=4))(step) for step in range(8)),
        *(rates_of(tiny(epochs=6))(step) for step in range(8, 12)),
    ]
    assert "the run's length changes from 8 to 12 steps: from step 8 on" in "\n".join(said)
    said.clear()
    pretrain(config, output=tmp_path / "one", log=said.append)
    assert said[-1] == "nothing left to do: all 12 steps were done"
    assert "length changes" not in "\n".join(said)


def test_a_length_that_cannot_be(tiny: Make, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"warmup_epochs \(1, of 2 steps each\) is longer than"):
        pretrain(tiny(steps=1), output=tmp_path, log=quiet)
    pretrain(tiny(steps=4), output=tmp_path, log=quiet)
    with pytest.raises(UsageError, match=r"4 steps are done in .*give it --steps 4 or more"):
        pretrain(tiny(steps=3), output=tmp_path, log=quiet)
    assert len(losses(tmp_path)) == 4
