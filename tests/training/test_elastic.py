"""Runs that change their processes and their layout, are killed or stand still, and go on."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from tests.support.processes import is_running, ranks
from tests.support.runs import ROOT, finish, losses, options, start
from videomae_fast import cli
from videomae_fast.errors import CheckpointError
from videomae_fast.interop.weights.state_dicts import load_weights
from videomae_fast.tasks.trained import load_model
from videomae_fast.training.checkpoint import newest, read

pytestmark = pytest.mark.slow
STEPS = 16
LIMIT = 6.0
"""Seconds that processes wait for one that was stopped."""


def torchrun(processes: int) -> tuple[str, ...]:
    launcher = "-m", "torch.distributed.run", "--standalone"
    return *launcher, "--nproc-per-node", str(processes)


@pytest.fixture(scope="module")
def words(broken_list: Path) -> list[str]:
    """Seven videos a step, which only one and seven processes divide; one can't be read."""
    return options(
        data=broken_list, epochs=STEPS, videos_per_step=7, drop_path=0.2, depth=2,
        checkpoint_every=2, log_every=1, decoder_mask="random", encoder_mask="random",
        base_lr=0.02, clip_grad=0.05,
    )  # fmt: skip


@pytest.fixture(scope="module")
def whole(words: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run that nothing happens to, in one process."""
    output = tmp_path_factory.mktemp("whole")
    keep = "--keep-checkpoints", str(STEPS)
    assert cli.main(["pretrain", *words, *keep, "--output", str(output)]) == 0
    return output


@dataclass(frozen=True)
class Stopped:
    """A rank that was stopped: what the launcher printed, its process, how long the others took to
    end, and what the run had saved."""

    said: str
    process: int
    seconds: float
    saved: Path


@pytest.fixture(scope="module")
def history(words: list[str], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Stopped]:
    """Four processes, sharded by two; killed. Three, all; one is stopped. Two, DDP, to the end."""
    output = tmp_path_factory.mktemp("changed")
    run = begun(4, [*words, "--shard", "2", "--reshard", "yes"], output, 4)
    run.send_signal(signal.SIGKILL)
    finish(run, -signal.SIGKILL)
    wait_for_lock(output)

    more = "--shard", "all", "--group-timeout", str(LIMIT)
    run = begun(3, [*words, *more], output, 10)
    processes = ranks(run)
    os.kill(processes[1], signal.SIGSTOP)
    since = time.monotonic()
    while any(is_running(processes[rank]) for rank in (0, 2)):
        assert time.monotonic() < since + 100
        time.sleep(0.02)
    seconds = time.monotonic() - since
    os.kill(processes[1], signal.SIGKILL)  # its launcher would wait half a minute for its end
    said = finish(run, 1)
    saved = newest(output / "checkpoints", print)
    assert saved is not None
    kept = shutil.copytree(saved.folder, tmp_path_factory.mktemp("sharded") / saved.folder.name)
    stopped = Stopped(said, processes[1], seconds, kept)

    said = finish(start([*words, "--output", str(output)], launcher=torchrun(2)))
    assert said.count(f"step {STEPS}/{STEPS}") == 1, "only the main process tells"
    return output, stopped


@pytest.fixture(scope="module")
def changed(history: tuple[Path, Stopped]) -> Path:
    return history[0]


def begun(processes: int, words: list[str], output: Path, step: int) -> subprocess.Popen[str]:
    """A run that has made so many steps."""
    launcher = *torchrun(processes), "--monitor-interval", "0.05"
    run = start([*words, "--output", str(output)], launcher=launcher)
    deadline = time.monotonic() + 200
    while not (output / "checkpoints" / f"step-{step:08d}").exists():
        assert run.poll() is None, finish(run)
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return run


def wait_for_lock(output: Path) -> None:
    """Processes end soon after their launcher; the folder is theirs until then."""
    deadline = time.monotonic() + 100
    while (output / ".lock").exists() and (output / ".lock").read_text():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_losses_are_those_of_one_process(whole: Path, changed: Path) -> None:
    one, other = losses(whole), losses(changed)
    assert len(one) == len(other) == STEPS
    for expected, found in zip(one, other, strict=True):
        assert found == pytest.approx(expected, rel=1e-4)
    lines = [json.loads(line) for line in (changed / "metrics.jsonl").read_text().splitlines()]
    expected_lines = [
        json.loads(line) for line in (whole / "metrics.jsonl").read_text().splitlines()
    ]
    failed = [line["failed_clips"] for line in lines]
    assert failed == [line["failed_clips"] for line in expected_lines], "empty places are none"


def test_who_stands_still_is_named_within_the_limit(history: tuple[Path, Stopped]) -> None:
    output, stopped = history
    named = "rank 1 is silent (stopped, or its machine can't be reached), and was last in step "
    assert f"error: the run stands still: {named}" in stopped.said
    assert f"(process {stopped.process} on " in stopped.said
    assert 0.8 * LIMIT < stopped.seconds < LIMIT + 30, "they ended by themselves"
    for rank in (0, 2):
        report = (output / "hang" / f"rank-{rank}.txt").read_text()
        assert report.startswith(f"rank {rank}, step ")
        assert named in report
        assert "most recent call first" in report
        assert "training/loop.py" in report


def test_what_a_sharded_run_saved_is_read_by_all(
    history: tuple[Path, Stopped], whole: Path, tmp_path: Path
) -> None:
    folder = history[1].saved
    saved, plain = read(folder), read(whole / "checkpoints" / folder.name)
    assert 10 <= saved.step == plain.step < STEPS
    assert [saved.state["format"], plain.state["format"]] == [3, 2]
    for one, other in ((saved.model(), plain.model()), (saved.optimizer(), plain.optimizer())):
        assert one.keys() == other.keys()
        for name, tensor in one.items():
            assert tensor.shape == other[name].shape
            torch.testing.assert_close(tensor, other[name], rtol=1e-2, atol=1e-3, msg=name)
    exported = []
    for number, each in enumerate((saved.folder, plain.folder)):
        target = tmp_path / f"{number}.safetensors"
        assert cli.main(["convert", str(each), str(target), "--to", "official"]) == 0
        exported.append(load_weights(target))
    assert exported[0].keys() == exported[1].keys()
    for name, tensor in exported[0].items():
        torch.testing.assert_close(tensor, exported[1][name], rtol=1e-2, atol=1e-3, msg=name)
    model, _ = load_model(folder)
    assert model.state_dict().keys() == saved.model().keys()

    shard = next(path for path in (saved.folder / "optimizer").iterdir())
    content = bytearray(shard.read_bytes())
    content[-1] ^= 1
    shard.write_bytes(content)
    with pytest.raises(CheckpointError, match=f"not whole: optimizer/{shard.name} has"):
        read(saved.folder)
    shard.unlink()
    with pytest.raises(CheckpointError, match=f"not whole: .*{shard.name}"):
        read(saved.folder)


def test_kills_at_any_moment_leave_whole_checkpoints(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.lives", str(tmp_path / "run"), "20", "1"],
        cwd=ROOT, capture_output=True, text=True, timeout=400, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("life ") == 20
