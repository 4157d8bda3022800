"""The schedule against an independent transcription of the official formula."""

from __future__ import annotations

import math

import numpy as np
import pytest

from videomae_fast.errors import UsageError
from videomae_fast.recipes import Optim, PretrainConfig, load
from videomae_fast.recipes import Schedule as Length
from videomae_fast.training.schedule import Schedule, learning_rates, total_steps


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
