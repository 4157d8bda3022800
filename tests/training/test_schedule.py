"""The schedule against an independent transcription of the official formula."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open

from videomae_fast.errors import UsageError
from videomae_fast.recipes import Optim, PretrainConfig, load
from videomae_fast.recipes import Schedule as Length
from videomae_fast.training.schedule import Schedule, learning_rates, total_steps, weight_decays

GOLDEN = Path(__file__).parents[1] / "golden" / "downstream_schedules.safetensors"


def official_tables() -> list[tuple[dict[str, Any], list[float]]]:
    """Arguments and table of each of the official code's."""
    with safe_open(GOLDEN, "np") as file:
        info = json.loads(file.metadata()["info"])
        return [(said, file.get_tensor(name).tolist()) for name, said in info.items()]


@pytest.mark.parametrize(("said", "table"), official_tables())
def test_tables_of_the_official_code(said: dict[str, Any], table: list[float]) -> None:
    per_epoch = said["niter_per_ep"]
    warmup = said.get("warmup_steps", said.get("warmup_epochs", 0) * per_epoch)
    rates = Schedule(said["base_value"], said["final_value"], warmup, len(table))
    assert [rates(step) for step in range(len(table))] == pytest.approx(table, rel=1e-12)
    if warmup == 0:  # the weight decays among them
        optim = Optim(weight_decay=said["base_value"], weight_decay_end=said["final_value"])
        length = Length(epochs=said["epochs"], warmup_epochs=2)
        decays = weight_decays(length, optim, per_epoch)
        assert [decays(step) for step in range(len(table))] == pytest.approx(table, rel=1e-12)


def test_weight_decay_stays_without_an_end() -> None:
    decays = weight_decays(Length(epochs=3, warmup_epochs=1), Optim(weight_decay=0.05), 4)
    assert {decays(step) for step in range(13)} == {0.05}


def test_an_end_without_a_decay_is_refused() -> None:
    with pytest.raises(UsageError, match="weight_decay_end would do nothing"):
        Optim(weight_decay=0.0, weight_decay_end=0.1)


def official_table(peak: float, final: float, warmup: int, total: int) -> list[float]:
    """The official table, entry by entry: linspace with both ends, then the cosine."""
    cosine = total - warmup
    return [
        *np.linspace(0, peak, warmup).tolist(),
        *(final + 0.5 * (peak - final) * (1 + math.cos(math.pi * i / cosine))
          for i in range(cosine)),
    ]  # fmt: skip


@pytest.mark.parametrize(("warmup", "total"), [(0, 50), (1, 7), (2, 7), (20, 200), (200, 200)])
def test_every_step_is_the_official_one(warmup: int, total: int) -> None:
    schedule = Schedule(4e-3, 4e-5, warmup, total)
    table = official_table(4e-3, 4e-5, warmup, total)
    assert len(table) == total
    assert [schedule(step) for step in range(total)] == pytest.approx(table, rel=1e-12)


def test_it_does_not_end_with_a_table() -> None:
    schedule = Schedule(1.0, 0.1, 2, 10)
    assert schedule(10) == schedule(10_000) == 0.1
    with pytest.raises(ValueError, match="step -1"):
        schedule(-1)


def test_both_rates_scale_with_the_videos_of_a_step() -> None:
    config = load(PretrainConfig, "vit_g_hybrid")
    schedule = learning_rates(config.schedule, config.optim, 659)
    assert total_steps(config.schedule, 659) == 300 * 659
    assert schedule.peak == pytest.approx(6e-4 * 2048 / 256)
    assert schedule.final == pytest.approx(1e-5 * 2048 / 256)
    assert (schedule.warmup_steps, schedule.total_steps) == (30 * 659, 300 * 659)


def test_a_warmup_longer_than_the_run_is_refused() -> None:
    with pytest.raises(ValueError, match="does not fit"):
        Schedule(1.0, 0.1, 11, 10)
    with pytest.raises(UsageError, match=r"schedule.warmup_epochs .2, of 6 steps each. is longer"):
        learning_rates(Length(steps=11, warmup_epochs=2), Optim(), 6)
    assert learning_rates(Length(steps=12, warmup_epochs=2), Optim(), 6).total_steps == 12
