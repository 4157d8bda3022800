"""Several processes when one is killed, fails, or loses its launcher."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.processes import is_running, ranks
from tests.support.runs import TORCHRUN, finish, options, start
from videomae_fast.training.checkpoint import checkpoints
from videomae_fast.training.metrics import read_metrics

STEPS = 60
pytestmark = pytest.mark.slow


def numbers(output: Path) -> list[tuple[float, ...]]:
    lines = read_metrics(output / "metrics.jsonl")
    return [(line["step"], line["loss"], line["grad_norm"], line["lr"]) for line in lines]


def wait_until(
    condition: Callable[[], object], what: str, run: subprocess.Popen[str] | None = None
) -> None:
    deadline = time.monotonic() + 100
    while not condition():
        assert run is None or run.poll() is None, f"{what}: did not come:\n{finish(run)}"
        assert time.monotonic() < deadline, f"{what}: did not come"
        time.sleep(0.01)


def begun(output: Path, step: int = 5) -> Callable[[], bool]:
    return (output / "checkpoints" / f"step-{step:08d}").exists


@pytest.fixture(scope="module")
def words(tiny_list: Path) -> list[str]:
    epochs = STEPS // 2
    return options(epochs=epochs, checkpoint_every=5, drop_path=0.2, depth=2, data=tiny_list)


@pytest.fixture(scope="module")
def whole(words: list[str], tmp_path_factory: pytest.TempPathFactory) -> list[tuple[float, ...]]:
    """The numbers of the run that nothing happens to."""
    output = tmp_path_factory.mktemp("whole")
    finish(start([*words, "--output", str(output)], launcher=TORCHRUN))
    return numbers(output)


def test_a_killed_rank_is_started_again_in_place_and_ranks_end_with_their_launcher(
    words: list[str], whole: list[tuple[float, ...]], tmp_path: Path
) -> None:
    launcher = (*TORCHRUN, "--max-restarts", "1", "--monitor-interval", "0.05")
    run = start([*words, "--output", str(tmp_path)], launcher=launcher)
    wait_until(begun(tmp_path, 5), "checkpoint", run)
    os.kill(ranks(run)[1], signal.SIGKILL)
    newest = lambda: checkpoints(tmp_path / "checkpoints")[0].name  # noqa: E731
    before = newest()
    wait_until(lambda: newest() > before, "restart", run)
    left = ranks(run)
    assert sorted(left) == [0, 1]
    run.kill()
    wait_until(lambda: not any(map(is_running, left.values())), "end of the ranks")
    said = finish(run, -signal.SIGKILL)
    assert "another process of the run ended without a word (killed?)" in said
    assert "resumed from" in said
    assert f"the launcher (process {run.pid}) is gone" in said
    assert "stopped by SIGTERM with" in said
    assert not (tmp_path / ".lock").exists()
    done = int(newest()[5:])
    assert 5 < done < STEPS
    assert numbers(tmp_path) == whole[:done]


def test_a_rank_that_fails_is_told_by_the_others(words: list[str], tmp_path: Path) -> None:
    run = start([*words, "--output", str(tmp_path)], launcher=TORCHRUN)
    wait_until(begun(tmp_path), "checkpoint", run)
    (tmp_path / "bad_files.rank1.jsonl").unlink()
    said = finish(run, 1)
    reason = f"{tmp_path}/bad_files.rank1.jsonl: was removed, moved or replaced while it was"
    errors = [line for line in said.splitlines() if ": error: " in line]
    assert any(f"pretrain: rank 1: error: {reason}" in line for line in errors), said
    assert any(f"rank 0: error: rank 1 failed: {reason}" in line for line in errors), said
    assert "see its message" in said
    assert "gloo" not in said
