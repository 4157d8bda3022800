"""The loss curve: read from a run's metrics, smoothed, drawn, and kept with its numbers."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from videomae_fast.errors import VideoMAEFastError
from videomae_fast.pictures.loss_curves import LossCurve, save_loss_plot


def record(step: int, loss: float | None, lr: float = 1e-3) -> dict[str, float | None]:
    return {"step": step, "loss": loss, "lr": lr, "epoch": 0}


def test_later_records_of_a_step_count_and_steps_without_a_loss_are_left_out() -> None:
    lines = [record(0, 1.0), record(1, 0.9), record(2, None), record(1, 0.8), record(3, 0.7)]
    curve = LossCurve.of(lines)
    assert curve.steps == [0, 1, 3]
    assert curve.loss == [1.0, 0.8, 0.7]
    assert curve.lr == [1e-3] * 3


def test_what_is_no_record_is_told() -> None:
    with pytest.raises(VideoMAEFastError, match=r"\{'step': 1, 'loss': 1\} is no record.*'lr'"):
        LossCurve.of([record(0, 1.0), {"step": 1, "loss": 1}])
    for nothing in ([], [record(0, None)]):
        with pytest.raises(VideoMAEFastError, match="no step with a loss"):
            LossCurve.of(nothing)


def test_smoothing_is_the_mean_of_the_last_ones() -> None:
    curve = LossCurve([0, 1, 2, 3], [4.0, 2.0, 6.0, 0.0], [1e-3] * 4)
    assert curve.smoothed(2) == [4.0, 3.0, 4.0, 3.0]
    assert curve.smoothed() == curve.loss


def test_picture_is_drawn_and_every_number_is_beside_it(tmp_path: Path) -> None:
    loss = [1.5 - 0.01 * step for step in range(60)]
    curve = LossCurve(list(range(60)), loss, [1e-3 * step / 60 for step in range(60)])
    table = save_loss_plot(curve, tmp_path / "loss.png", title="a run")
    with Image.open(tmp_path / "loss.png") as picture:
        pixels = np.asarray(picture.convert("RGB")).astype(int)
    blue = (np.abs(pixels - (0x1D, 0x4E, 0xD8)).sum(-1) < 60).nonzero()
    assert len(blue[0]) > 200
    assert blue[0][blue[1] < pixels.shape[1] // 3].mean() < blue[0].max() - 100  # it falls
    with table.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert table.name == "loss.csv"
    assert [float(row["loss"]) for row in rows] == loss
    assert [float(row["loss_smoothed"]) for row in rows] == curve.smoothed()
