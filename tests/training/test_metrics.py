"""Metrics files over resumes, progress lines, TensorBoard."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from videomae_fast.errors import UsageError, VideoMAEFastError
from videomae_fast.recipes import PretrainConfig
from videomae_fast.training import pretrain
from videomae_fast.training.metrics import (
    MetricsFile,
    Progress,
    StepMetrics,
    TensorBoard,
    read_metrics,
)


def metrics(step: int, loss: float | None = 0.5) -> StepMetrics:
    return StepMetrics(step, step // 4, loss, 1e-3, 0.25, clips=8, failed_clips=0)


def write(path: Path, start: int, stop: int) -> None:
    file = MetricsFile(path, start)
    for step in range(start, stop):
        file.write(metrics(step), clips_per_s=1.0)
    file.close()


def test_steps_that_are_made_again_are_dropped(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    write(path, 0, 6)
    with path.open("a") as file:
        file.write('{"step": 6, "lo')  # a kill in the middle of a line
    write(path, 4, 8)
    assert [line["step"] for line in read_metrics(path)] == list(range(8))


def test_a_line_that_is_no_metrics_line_is_named(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    text = '{"step": 0}\nloss 0.5\n{"step": 2}\n'
    path.write_text(text)
    with pytest.raises(VideoMAEFastError, match=r"metrics.jsonl:2: found 'loss 0.5'"):
        MetricsFile(path, 3)
    assert path.read_text() == text
    with pytest.raises(VideoMAEFastError, match=r"metrics.jsonl:2: found 'loss 0.5'"):
        read_metrics(path)
    file = MetricsFile(path, 1)  # steps from 1 on are made again
    file.close()
    assert path.read_text() == '{"step": 0}\n'
    assert file.aside is not None
    assert file.aside.read_text() == text


def test_a_step_without_a_loss_is_null(tmp_path: Path) -> None:
    file = MetricsFile(tmp_path / "metrics.jsonl", 0)
    file.write(metrics(0, loss=None))
    file.close()
    assert json.loads((tmp_path / "metrics.jsonl").read_text())["loss"] is None


def test_the_progress_line() -> None:
    now = [100.0]
    progress = Progress(1000, 250, clips_per_step=8, start_step=10, clock=lambda: now[0])
    now[0] += 20
    progress.waited(5)
    speed = progress.speed(50)
    assert speed == {"clips_per_s": 16.0, "data_wait": 0.25}
    line = progress.line(metrics(49), speed, failed_videos=3)
    # 950 steps of 8 clips at 16 clips/s: 475 s
    assert line.split("  ") == [
        "step 50/1000", "epoch 13/250", "loss 0.5000", "lr 1.00e-03", "grad norm 0.25",
        "16.0 clips/s", "data wait 25%", "failed videos 3", "ETA 0:07:55",
    ]  # fmt: skip


def test_parts_of_a_step_are_told_with_their_shares() -> None:
    progress = Progress(1000, 250, clips_per_step=8, start_step=0, clock=lambda: 0.0)
    speed = {"clips_per_s": 16.0, "data_wait": 0.0}  # two steps a second
    shares = progress.shares(speed, {"teacher": 125.0})
    assert shares == {"teacher_ms": 125.0, "teacher_share": 0.25}
    line = progress.line(metrics(10), {**speed, **shares}, 0)
    assert "data wait 0%  teacher 125 ms (25%)  failed videos 0" in line
    assert progress.shares(speed, {"teacher": 900.0})["teacher_share"] == 1.0


def test_tensorboard_that_is_not_there_says_how_to_get_it(
    tiny: Callable[..., PretrainConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(UsageError, match="pip install tensorboard, or"):
        pretrain(tiny(tensorboard=True), output=tmp_path, log=lambda _: None)


def test_tensorboard_gets_every_number(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    board = TensorBoard(tmp_path, 0, "pretrain")
    board.write(metrics(0), clips_per_s=2.0)
    board.close()
    assert list(tmp_path.glob("events.*"))
