"""Runs in processes of their own: killed ones, and several at once."""

from __future__ import annotations

import os
import signal
import socket
import time
from pathlib import Path

import pytest

from tests.support.launches import Host
from tests.support.runs import options
from videomae_fast import cli
from videomae_fast.training.metrics import read_metrics

CLI = "videomae_fast.cli:main"


def numbers(output: Path) -> list[tuple[float, ...]]:
    lines = read_metrics(output / "metrics.jsonl")
    return [(line["step"], line["loss"], line["grad_norm"], line["lr"]) for line in lines]


def test_a_run_has_said_nothing_before_it_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long its process takes to come: on a busy machine it is asked before."""
    monkeypatch.setattr(Host, "_ask", lambda *_: 1)
    assert Host().alone(CLI, [], tmp_path / "alone").said() == ""
    assert Host().start(2, CLI, [], tmp_path / "ranks").said() == ""


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 200
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} did not appear"
        time.sleep(0.01)


def test_a_killed_run_goes_on_with_the_very_losses(
    host: Host, tiny_list: Path, tmp_path: Path
) -> None:
    words = options(epochs=30, checkpoint_every=5, drop_path=0.2, depth=2, data=tiny_list)
    given, log = ["pretrain", *words, "--output", str(tmp_path / "killed")], tmp_path / "log"
    killed = host.alone(CLI, given, log)
    wait_for(tmp_path / "killed" / "checkpoints" / "step-00000005")
    killed.kill()
    killed.finish(-signal.SIGKILL)
    assert (
        cli.main(["pretrain", *words, "--output", str(tmp_path / "whole"), "--workers", "1"]) == 0
    )
    done = len(numbers(tmp_path / "killed"))
    assert done < 60, "it was killed too late to show anything"
    assert "resumed from" in host.alone(CLI, given, log).finish()
    assert numbers(tmp_path / "killed") == numbers(tmp_path / "whole")


def test_a_signal_to_one_process_stops_all(host: Host, tiny_list: Path, tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    output = tmp_path / "run"
    words = [*options(epochs=5000, checkpoint_every=5, data=tiny_list), "--output", str(output)]
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    ranks = [
        host.alone(CLI, ["pretrain", *words], tmp_path / f"{rank}", RANK=f"{rank}", **shared)
        for rank in range(2)
    ]
    wait_for(output / "checkpoints" / "step-00000005")
    os.kill(ranks[1].pid, signal.SIGTERM)
    said = [process.finish(128 + signal.SIGTERM) for process in ranks]
    assert "stopped by SIGTERM with" in said[0]
    step = int(said[0].split("stopped by SIGTERM with ")[1].split()[0])
    assert (output / "checkpoints" / f"step-{step:08d}" / "state.json").exists()
    assert numbers(output)[-1][0] == step - 1
