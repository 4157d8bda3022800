"""What processes tell of themselves: side by side, to Prometheus, and when they stand still."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.support.processes import printed
from tests.support.runs import quiet
from videomae_fast.data.errors import OutputError
from videomae_fast.recipes import PretrainConfig
from videomae_fast.training import pretrain
from videomae_fast.training.hangs import hang_reports
from videomae_fast.training.loop import _whose
from videomae_fast.training.parallel.world import World
from videomae_fast.training.per_rank import LOOKS, Figures, PerRank, Stopwatch, summary
from videomae_fast.training.prometheus import PrometheusFile, text


def figures(*forward: float) -> list[Figures]:
    return [Figures(f"node{i}", 0.1 * i, each, i) for i, each in enumerate(forward)]


def test_the_largest_of_each_figure_has_a_name() -> None:
    found = summary(figures(1.0, 3.0, 2.0))
    assert found["forward"] == {"min": 1.0, "median": 2.0, "max": 3.0, "rank": 1, "host": "node1"}
    assert (found["data_wait"]["rank"], found["memory"]["host"]) == (2, "node2")


def test_who_stays_slow_is_told_once(tmp_path: Path) -> None:
    world = World(1, 4, torch.device("cpu"))
    ranks = PerRank(tmp_path / "ranks.jsonl", world, 0, quiet)
    slow, even = figures(1.0, 1.0, 1.2, 1.0), figures(1.0, 1.0, 1.1, 1.0)
    said = [ranks.stragglers(each) for each in [slow] * (LOOKS - 1) + [even] + [slow] * LOOKS * 2]
    assert [len(lines) for lines in said].count(1) == 1
    assert said[2 * LOOKS - 1] == [
        "rank 2 on node2 is slow: its forward pass takes 1.200 s, the median 1.000 s, 5 looks "
        "running"
    ]


def test_a_line_for_each_look_in_a_file_that_is_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(0, 2, torch.device("cpu"))
    monkeypatch.setattr(World, "gather", lambda _, own: [own, replace(own, host="other")])
    path = tmp_path / "ranks.jsonl"
    for start in (0, 20):
        ranks = PerRank(path, world, start, quiet)
        for done in (start + 10, start + 20):
            loading = {"decode": 3.0, "crop": 1.0, "assemble": 0.5, "frames_cpu": 64}
            speed = {"data_wait": 0.25, "clips_per_s": 32.0}
            ranks.look(done, 10, speed, 5.0, loading, 8)
        ranks.close()
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["step"] for line in lines] == [9, 19, 29, 39]
    assert lines[0]["forward"]["max"] == 0.5
    assert lines[0]["data_wait"]["median"] == lines[0]["step_time"]["median"] == 0.25
    assert [lines[0][name]["max"] for name in loading] == [3.0, 1.0, 0.5, 64]


def test_a_stopwatch_that_is_not_wanted_does_nothing() -> None:
    on, off = (Stopwatch(torch.device("cpu"), active=active) for active in (True, False))
    for watch in (on, off):
        with watch:
            sum(range(1000))
    assert on.seconds() > 0
    assert on.seconds() == 0
    assert off.seconds() == 0


def test_prometheus_text() -> None:
    found = text({"step": 3, "loss": 0.5, "grad_norm": None}, 'a "run"\n')
    assert found.splitlines() == [
        "# TYPE videomae_fast_step gauge",
        r'videomae_fast_step{run="a \"run\"\n"} 3.0',
        "# TYPE videomae_fast_loss gauge",
        r'videomae_fast_loss{run="a \"run\"\n"} 0.5',
    ]


def test_a_run_keeps_its_prometheus_file(
    tiny: Callable[..., PretrainConfig], tmp_path: Path
) -> None:
    path = tmp_path / "run.prom"
    pretrain(tiny(steps=2, prometheus=str(path)), output=tmp_path / "run", log=quiet)
    lines = {
        line.partition("{")[0]: line.rpartition(" ")[2]
        for line in path.read_text().splitlines()
        if not line.startswith("#")
    }
    assert float(lines["videomae_fast_step"]) == 1
    assert float(lines["videomae_fast_loss"]) > 0
    assert float(lines["videomae_fast_clips_per_s"]) > 0
    assert [each.name for each in tmp_path.iterdir()].count(".run.prom") == 0
    with pytest.raises(OutputError, match="give --prometheus a file in a folder that is there"):
        PrometheusFile(tmp_path / "nowhere" / "x.prom", "run").write({"step": 1})


def test_whose_loss_was_not_finite() -> None:
    assert _whose([True]) == ""
    assert _whose([False, True, True]) == "The loss of rank 1, 2 was not finite. "
    assert "finite, so it was in the backward pass" in _whose([False, False])


def test_a_signal_shows_the_stacks() -> None:
    code = (
        "import os, signal\n"
        "from videomae_fast.training.hangs import telling_stacks\n"
        "with telling_stacks():\n"
        "    os.dup2(1, 2)\n"
        "    os.kill(os.getpid(), signal.SIGUSR1)\n"
        "print('still here')\n"
    )
    said = printed(code)
    assert "most recent call first" in said
    assert "still here" in said
    assert signal.getsignal(signal.SIGUSR1) == signal.SIG_DFL


def test_nccl_reports_into_the_runs_folder(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("TORCH_FR_BUFFER_SIZE", "7")
    with hang_reports(tmp_path):
        assert os.environ["TORCH_NCCL_DUMP_ON_TIMEOUT"] == "1"
        assert os.environ["TORCH_FR_BUFFER_SIZE"] == "7", "what is set stays"
        assert os.environ["TORCH_NCCL_DEBUG_INFO_TEMP_FILE"] == f"{tmp_path}/hang/nccl_rank"
    assert "TORCH_NCCL_DUMP_ON_TIMEOUT" not in os.environ
    assert os.environ["TORCH_FR_BUFFER_SIZE"] == "7"
