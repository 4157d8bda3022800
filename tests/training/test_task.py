"""The engine under a task that the package does not have: it need not change for one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.support.runs import losses, quiet
from tests.training.another_task import DECAY, LAYER_DECAY, Classification, Distilled, build_model
from videomae_fast.data import ClipBatch
from videomae_fast.recipes import PretrainConfig
from videomae_fast.tasks.pretraining import dataset_of, settings_of
from videomae_fast.training.checkpoint import read
from videomae_fast.training.loop import RunResult, run
from videomae_fast.training.metrics import read_metrics
from videomae_fast.training.parallel.world import World
from videomae_fast.training.step import TrainStep

Make = Callable[..., PretrainConfig]
CPU = World(0, 1, torch.device("cpu"))


def classify(config: PretrainConfig, output: Path, *, steps: int) -> tuple[RunResult, list[int]]:
    settings = settings_of(config)
    made: list[Classification] = []

    def make(world: World) -> Classification:
        made.append(Classification(dataset_of(config), settings, world, total_steps=steps))
        return made[-1]

    return run(make, settings, output=output, log=quiet), made[-1].evaluated


def test_another_task_runs_saves_and_goes_on(tiny: Make, tmp_path: Path) -> None:
    config = tiny(checkpoint_every=3, accumulation=2)
    whole, evaluated = classify(config, tmp_path / "whole", steps=6)
    assert evaluated == [2, 4, 6]
    lines = read_metrics(tmp_path / "whole" / "metrics.jsonl")
    assert all(0 <= line["accuracy"] <= 1 for line in lines)
    assert len({line["accuracy"] for line in lines}) > 1
    classify(config, tmp_path / "parts", steps=3)
    again, _ = classify(config, tmp_path / "parts", steps=6)
    assert losses(tmp_path / "parts") == losses(tmp_path / "whole")
    one, other = (read(result.checkpoint) for result in (whole, again))
    assert {name.partition(".")[0] for name in one.optimizer()} == {
        "step", "exp_avg", "exp_avg_sq", "ema",
    }  # fmt: skip
    for mine, theirs in ((one.model(), other.model()), (one.optimizer(), other.optimizer())):
        assert all(torch.equal(mine[name], theirs[name]) for name in mine)


def test_rates_by_layer_and_a_moving_average(tiny: Make, labelled: ClipBatch) -> None:
    model = build_model(0)
    before = [parameter.detach().clone() for parameter in model.parameters()]
    step = TrainStep(Distilled(), model, settings_of(tiny()), CPU)
    teacher = [parameter.clone() for parameter in step.objective.teacher.parameters()]
    step.forward_backward(labelled, step=0, micro=0)
    row = dict(zip(step.columns, step.update(1e-2).tolist(), strict=True))
    assert row["loss_weight"] == len(labelled)
    assert [group["lr"] for group in step.optimizer.param_groups] == [1e-2 * LAYER_DECAY, 1e-2]
    for old, parameter in zip(before, model.parameters(), strict=True):
        average = step.optimizer.state[parameter]["ema"]
        assert torch.allclose(average, DECAY * old + (1 - DECAY) * parameter, atol=1e-7)
        assert not torch.equal(old, parameter)
    # A step that changes nothing moves no average either
    averages = [step.optimizer.state[p]["ema"].clone() for p in model.parameters()]
    nothing = ClipBatch(
        labelled.frames, labelled.mask_seeds, labelled.ok & False, labelled.labels, []
    )
    step.forward_backward(nothing, step=1, micro=0)
    step.update(1e-2)
    for average, parameter in zip(averages, model.parameters(), strict=True):
        assert torch.equal(average, step.optimizer.state[parameter]["ema"])
    for one, other in zip(teacher, step.objective.teacher.parameters(), strict=True):
        assert torch.equal(one, other)
        assert other.grad is None


@pytest.fixture
def labelled() -> ClipBatch:
    generator = torch.Generator().manual_seed(1)
    frames = torch.randint(0, 256, (8, 4, 32, 32, 3), dtype=torch.uint8, generator=generator)
    seeds = torch.randint(2**62, (8,), generator=generator)
    return ClipBatch(frames, seeds, torch.ones(8, dtype=torch.bool), seeds % 4, [])
