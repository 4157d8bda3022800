"""Several processes when one is killed, fails, or loses its launcher."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.launches import Host, Run
from tests.support.processes import is_running
from tests.support.runs import options
from videomae_fast.training.checkpoint import checkpoints
from videomae_fast.training.metrics import read_metrics

CLI = "videomae_fast.cli:main"
STEPS = 60


def numbers(output: Path) -> list[tuple[float, ...]]:
    lines = read_metrics(output / "metrics.jsonl")
    return [(line["step"], line["loss"], line["grad_norm"], line["lr"]) for line in lines]


def wait_until(condition: Callable[[], object], what: str, run: Run | None = None) -> None:
    deadline = time.monotonic() + 100
    while not condition():
        assert run is None or run.poll() is None, f"{what}: did not come:\n{run.said()}"
        assert time.monotonic() < deadline, f"{what}: did not come"
        time.sleep(0.01)


def begun(output: Path, step: int = 5) -> Callable[[], bool]:
    return (output / "checkpoints" / f"step-{step:08d}").exists


@pytest.fixture(scope="module")
def words(tiny_list: Path) -> list[str]:
    epochs = STEPS // 2
    given = options(epochs=epochs, checkpoint_every=5, drop_path=0.2, depth=2, data=tiny_list)
    return ["pretrain", *given]


@pytest.fixture(scope="module")
def whole(
    host: Host, words: list[str], tmp_path_factory: pytest.TempPathFactory
) -> list[tuple[float, ...]]:
    """The numbers of the run that nothing happens to."""
    output = tmp_path_factory.mktemp("whole")
    host.start(2, CLI, [*words, "--output", str(output)], output.with_suffix(".log")).finish()
    return numbers(output)


def test_a_killed_rank_is_started_again_in_place_and_ranks_end_with_their_launcher(
    host: Host, words: list[str], whole: list[tuple[float, ...]], tmp_path: Path
) -> None:
    output, log = tmp_path / "run", tmp_path / "log"
    run = host.start(2, CLI, [*words, "--output", str(output)], log, restarts=1)
    wait_until(begun(output, 5), "checkpoint", run)
    os.kill(run.ranks()[1], signal.SIGKILL)
    newest = lambda: checkpoints(output / "checkpoints")[0].name  # noqa: E731
    before = newest()
    wait_until(lambda: newest() > before, "restart", run)
    left = run.ranks()
    assert sorted(left) == [0, 1]
    run.kill()
    wait_until(lambda: not any(map(is_running, left.values())), "end of the ranks")
    said = run.finish(-signal.SIGKILL)
    assert "another process of the run ended without a word (killed?)" in said
    assert "resumed from" in said
    assert f"the launcher (process {run.pid}) is gone" in said
    assert "stopped by SIGTERM with" in said
    assert not (output / ".lock").exists()
    done = int(newest()[5:])
    assert 5 < done < STEPS
    assert numbers(output) == whole[:done]


def test_a_rank_that_fails_is_told_by_the_others(
    host: Host, words: list[str], tmp_path: Path
) -> None:
    output = tmp_path / "run"
    run = host.start(2, CLI, [*words, "--output", str(output)], tmp_path / "log")
    wait_until(begun(output), "checkpoint", run)
    (output / "bad_files.rank1.jsonl").unlink()
    said = run.finish(1)
    reason = f"{output}/bad_files.rank1.jsonl: was removed, moved or replaced while it was"
    errors = [line for line in said.splitlines() if ": error: " in line]
    assert any(f"pretrain: rank 1: error: {reason}" in line for line in errors), said
    assert any(f"rank 0: error: rank 1 failed: {reason}" in line for line in errors), said
    assert "see its message" in said
    assert "gloo" not in said
