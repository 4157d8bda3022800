"""Runs that change their processes and their layout, are killed or stand still, and go on."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from tests.support.accidents import TARGET, Accident, words_of
from tests.support.launches import LIMIT as PATIENCE
from tests.support.launches import Host
from tests.support.processes import is_running, is_stopped
from tests.support.runs import losses, options
from videomae_fast import cli
from videomae_fast.errors import CheckpointError
from videomae_fast.interop.weights.state_dicts import load_weights
from videomae_fast.tasks.trained import load_model
from videomae_fast.training.checkpoint import newest, read

pytestmark = pytest.mark.slow
STEPS = 16
LIMIT = 6.0
"""Seconds that processes wait for one that was stopped."""


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
class History:
    """What became of a run.

    Attributes:
        output: its folder.
        said: what each start of it printed, by its processes.
        stopped: the process that was stopped, and how long the others took to end.
        refused: what a second run in the folder printed meanwhile.
        saved: the checkpoint of the four processes.
    """

    output: Path
    said: dict[int, str]
    stopped: tuple[int, float]
    refused: str
    saved: Path


@pytest.fixture(scope="module")
def history(host: Host, words: list[str], tmp_path_factory: pytest.TempPathFactory) -> History:
    """Four processes, sharded by two; the main one stops. Two, all; the main one is killed between
    the parts of a checkpoint and its name, both are started in place, and the other is killed. One;
    killed. Three, all, to the end."""
    output, logs = tmp_path_factory.mktemp("changed"), tmp_path_factory.mktemp("said")
    given = ["pretrain", *words, "--output", str(output)]

    more = "--shard", "2", "--reshard", "yes", "--group-timeout", str(LIMIT)
    ranks = words_of([*given, *more], Accident("stop", 0, 6))
    run = host.start(4, TARGET, ranks, logs / "4")
    wait_until(lambda: any(map(is_stopped, run.ranks().values())))
    since, processes = time.monotonic(), run.ranks()
    second = host.start(2, TARGET, words_of(given), logs / "second")
    wait_until(lambda: not any(is_running(processes[rank]) for rank in (1, 2, 3)))
    seconds = time.monotonic() - since
    refused = second.finish(1)
    os.kill(processes[0], signal.SIGKILL)  # its launcher would wait half a minute for its end
    said = {4: run.finish(1)}
    saved = newest(output / "checkpoints", print)
    assert saved is not None
    kept = shutil.copytree(saved.folder, tmp_path_factory.mktemp("sharded") / saved.folder.name)

    happens = Accident("kill", 0, 8, commit=True), Accident("kill", 1, 10, life=1)
    ranks = words_of([*given, "--shard", "all", "--reshard", "no"], *happens)
    said[2] = host.start(2, TARGET, ranks, logs / "2", restarts=1).finish(1)

    ranks = words_of(given, Accident("kill", 0, 12))
    said[1] = host.start(1, TARGET, ranks, logs / "1").finish(1)

    ranks = words_of([*given, "--shard", "all", "--reshard", "yes"])
    said[3] = host.start(3, TARGET, ranks, logs / "3").finish()
    return History(output, said, (processes[0], seconds), refused, kept)


def wait_until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_losses_are_those_of_one_process(whole: Path, history: History) -> None:
    one, other = losses(whole), losses(history.output)
    assert len(one) == len(other) == STEPS
    for expected, found in zip(one, other, strict=True):
        assert found == pytest.approx(expected, rel=1e-4)
    lines, expected_lines = (
        [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        for folder in (history.output, whole)
    )
    failed = [line["failed_clips"] for line in lines]
    assert failed == [line["failed_clips"] for line in expected_lines], "empty places are none"
    assert history.said[3].count(f"step {STEPS}/{STEPS}") == 1, "only the main process tells"


def test_figures_of_each_rank(history: History) -> None:
    """Four frames a video, of which both clips are; what can't be read, or is empty, has none."""
    lines = [json.loads(line) for line in (history.output / "ranks.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines[-4:]] == [12, 13, 14, 15], "by the three processes"
    for line in lines[-4:]:
        assert 0 < line["forward"]["min"] <= line["step_time"]["min"]
        assert 2 * 4 <= line["frames_cpu"]["median"] <= line["frames_cpu"]["max"] == 3 * 4
        assert line["frames_device"]["max"] == line["frames_cached"]["max"] == 0


def test_each_start_goes_on_from_what_is_whole(history: History) -> None:
    """4 or 6, which was written when one stopped; 6, as 8 has all its parts and no name; 8 or 10,
    which was written when the other was killed; 12, which one process alone wrote."""
    every = [
        line.rpartition("step-")[2]
        for processes in (4, 2, 1, 3)
        for line in history.said[processes].splitlines()
        if "resumed from" in line
    ]
    steps = [int(name) for name in every]
    assert len(steps) == 4
    assert steps[0] in (4, 6)
    assert steps[1] == 6
    assert steps[2] in (8, 10)
    assert steps[3] == 12
    assert "from the beginning" in history.said[4]
    killed = "another process of the run ended without a word (killed?), or can't be reached any "
    assert f"rank 1: error: {killed}more, while checkpoint {history.output}" in history.said[2]


def test_who_stands_still_is_named_within_the_limit(history: History) -> None:
    process, seconds = history.stopped
    named = "rank 0 is silent (stopped, or its machine can't be reached), and was last in step "
    assert f"error: the run stands still: {named}" in history.said[4]
    assert f"(process {process} on " in history.said[4]
    assert 0.8 * LIMIT < seconds < LIMIT + 30, "they ended by themselves"
    waited_for = r" \(process \d+ on \S+\)\. Waited for is "
    in_words = r"(all_gather|all_reduce|reduce_scatter)\w*( \[.*\])?, number \d+ of group \w+"
    assert re.search(
        f"error: the run stands still: {re.escape(named)}.*{waited_for}{in_words}", history.said[4]
    )
    for rank in (1, 2, 3):
        report = (history.output / "hang" / f"rank-{rank}.txt").read_text()
        assert report.startswith(f"rank {rank}, step ")
        assert named in report
        assert re.search(rf"\nrank {rank}: step \d+, .*: {in_words}", report), report
        assert "most recent call first" in report
        assert "training/loop.py" in report


def test_a_second_run_in_the_folder_is_refused_by_all_its_processes(history: History) -> None:
    taken = f"{history.output}: another process pre-trains here (process {history.stopped[0]}"
    assert f"error: {taken}" in history.refused
    assert f"rank 1: error: rank 0 failed: {taken}" in history.refused


def test_what_a_sharded_run_saved_is_read_by_all(
    history: History, whole: Path, tmp_path: Path
) -> None:
    folder = history.saved
    saved, plain = read(folder), read(whole / "checkpoints" / folder.name)
    assert saved.step == plain.step
    assert saved.step in (4, 6), "which is written behind step 6"
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


def test_a_loss_that_is_not_finite_in_one_process_alone(
    host: Host, words: list[str], whole: Path, tmp_path: Path
) -> None:
    """It is named; nobody's weights change, and one process goes on from them."""
    output = tmp_path / "run"
    given = ["pretrain", *words, "--output", str(output)]
    ranks = words_of([*given, "--shard", "all", "--reshard", "yes"], Accident("nan", 1, 3))
    said = host.start(2, TARGET, ranks, tmp_path / "log").finish(1)
    assert "step 3: loss nan, gradient norm nan. The loss of rank 1 was not finite. " in said
    before = output / "non_finite" / "step-00000003"
    assert read(before).step == 3
    assert len(json.loads((before / "clips.json").read_text())) == 7
    assert cli.main([*given, "--resume", str(before)]) == 0
    for expected, found in zip(losses(whole), losses(output), strict=True):
        assert found == pytest.approx(expected, rel=1e-4)


def test_kills_at_any_moment_leave_whole_checkpoints(host: Host, tmp_path: Path) -> None:
    words = [str(tmp_path / "run"), "20", "1"]
    said = host.start(1, "tests.support.lives:main", words, tmp_path / "log").finish()
    assert said.count("life ") == 20
