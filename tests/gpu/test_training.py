"""The steps of a training run on a GPU: every mode, and the same bits every time."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.support.devices import NEEDS_GPU
from tests.support.runs import TINY, altered
from tests.support.steps import batch, split
from videomae_fast.data import ClipBatch
from videomae_fast.recipes import PretrainConfig
from videomae_fast.tasks.pretraining import Reconstruction, build_model, settings_of
from videomae_fast.training.deterministic import deterministic_algorithms
from videomae_fast.training.optimizer.update import OnePass
from videomae_fast.training.parallel.world import World
from videomae_fast.training.step import TrainStep
from videomae_fast.training.step_mode import make_step

STEPS, RATE = 4, 1e-3


def new_step(device: str, **changed: Any) -> TrainStep[ClipBatch]:
    config = altered(PretrainConfig(), **{**TINY, "device": device, "width": 128, **changed})
    model, settings = build_model(config), settings_of(config)
    world = World(0, 1, torch.device(device))
    return make_step(Reconstruction(config), model, settings, world, lambda _: None)


def trained(step: TrainStep[ClipBatch]) -> tuple[list[list[float]], dict[str, torch.Tensor]]:
    """What each step told, and the weights after them."""
    rows = []
    for number in range(STEPS):
        for micro, part in enumerate(split(batch(8, number), step.settings.accumulation)):
            step.forward_backward(part, step=number, micro=micro)
        rows.append(step.update(RATE))
    return [row.tolist() for row in rows], step.model.state_dict()


@pytest.mark.parametrize(
    ("device", "mode"),
    [
        ("cpu", "eager"),
        pytest.param("cuda", "eager", marks=NEEDS_GPU),
        pytest.param("cuda", "captured", marks=NEEDS_GPU),
    ],
)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_one_step_twice_gives_the_same_bits(device: str, mode: str, precision: str) -> None:
    options = {"precision": precision, "step_mode": mode, "deterministic": True}
    with deterministic_algorithms(torch.device(device)):
        (rows, first), (again, second) = (trained(new_step(device, **options)) for _ in range(2))
    assert rows == again
    assert [name for name, value in first.items() if not torch.equal(value, second[name])] == []


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"accumulation": 2, "drop_path": 0.3, "depth": 3},
        {"decoder_mask": "random", "clip_grad": 0.05},
        {"activation_checkpointing": True},
    ],
    ids=lambda changed: ", ".join(changed) or "plain",
)
@pytest.mark.parametrize(
    "mode", [pytest.param(m, marks=NEEDS_GPU) for m in ("compiled", "captured")]
)
def test_every_mode_tells_what_the_eager_one_tells(mode: str, changed: dict[str, Any]) -> None:
    options = {"precision": "fp32", **changed}
    expected, _ = trained(new_step("cuda", step_mode="eager", **options))
    found, _ = trained(new_step("cuda", step_mode=mode, **options))
    for mine, theirs in zip(found, expected, strict=True):
        assert mine == pytest.approx(theirs, rel=1e-3)


@pytest.mark.parametrize("mode", [pytest.param(m, marks=NEEDS_GPU) for m in ("eager", "captured")])
def test_copies_of_weights_tell_what_autocast_tells(mode: str) -> None:
    """Matmuls on copies that the update writes, and the update in one pass."""
    options = {"precision": "bf16", "deterministic": True, "clip_grad": 0.05}
    with deterministic_algorithms(torch.device("cuda")):
        expected, _ = trained(new_step("cuda", step_mode="eager", **options))
        step = new_step("cuda", step_mode=mode, shadow_weights=True, **options)
        assert isinstance(step._update, OnePass)
        found, _ = trained(step)
    for mine, theirs in zip(found, expected, strict=True):
        assert mine == pytest.approx(theirs, rel=1e-4)
