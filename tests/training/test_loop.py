"""Whole runs in this process: what they leave, how they stop, and how they go on."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.support.runs import altered, interrupt_after, losses, quiet
from videomae_fast.data import FailureShareError, Source
from videomae_fast.recipes import PretrainConfig, from_plain
from videomae_fast.training import load_model, pretrain
from videomae_fast.training.checkpoint import read
from videomae_fast.training.errors import CheckpointError, InterruptedRunError, NonFiniteError
from videomae_fast.training.metrics import read_metrics
from videomae_fast.training.schedule import learning_rates
from videomae_fast.training.step import TrainStep

Make = Callable[..., PretrainConfig]


def test_what_a_run_leaves(tiny: Make, tmp_path: Path) -> None:
    said: list[str] = []
    config = tiny(checkpoint_every=2, keep_checkpoints=2)
    result = pretrain(config, output=tmp_path, log=said.append)
    lines = read_metrics(tmp_path / "metrics.jsonl")
    assert [line["step"] for line in lines] == list(range(8))
    assert [line["epoch"] for line in lines] == [0, 0, 1, 1, 2, 2, 3, 3]
    schedule = learning_rates(config.schedule, config.optim, 2)
    assert [line["lr"] for line in lines] == [schedule(step) for step in range(8)]
    assert lines[-1]["loss"] == result.last_loss
    assert {line["clips"] for line in lines} == {8}
    assert result.steps == 8
    kept = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert kept == ["step-00000006", "step-00000008"]
    assert result.checkpoint == tmp_path / "checkpoints" / "step-00000008"
    assert from_plain(PretrainConfig, json.loads((tmp_path / "config.json").read_text())) == config
    progress = [line for line in said if "clips/s" in line]
    assert [line.split()[1] for line in progress] == ["2/8", "4/8", "6/8", "8/8"]
    assert all(word in progress[0] for word in ("data wait", "failed videos 0", "ETA", "epoch 1/4"))


def test_a_run_that_waits_for_data_says_why_once(
    tiny: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("videomae_fast.training.telling.STARVED", 0.0)
    said: list[str] = []
    pretrain(tiny(workers=0, log_every=1), output=tmp_path, log=said.append)
    told = [line for line in said if line.startswith("waiting for data")]
    assert told == [
        "waiting for data: the main process reads the clips itself: give it loader processes "
        "(--workers)"
    ]


def test_how_videos_were_read_is_told_at_first_and_at_the_end(tiny: Make, tmp_path: Path) -> None:
    said: list[str] = []
    config = tiny(workers=0, log_every=1, cache=str(tmp_path / "cache"))
    pretrain(config, output=tmp_path / "run", log=said.append)
    told = [line for line in said if "came from the cache" in line]
    videos = config.optim.videos_per_step
    assert told[0].startswith(f"0 of {videos} videos")
    assert f"of {8 * videos} videos" in told[1]
    assert len(told) == 2


def test_the_loss_falls(tiny: Make, tmp_path: Path) -> None:
    pretrain(tiny(epochs=40, base_lr=0.6, samples_per_video=4), output=tmp_path, log=quiet)
    found = [loss for _, loss, _, _ in losses(tmp_path)]
    assert sum(found[-4:]) < 0.97 * sum(found[:4])


def test_a_model_is_loaded_from_run_checkpoint_and_file(tiny: Make, tmp_path: Path) -> None:
    result = pretrain(tiny(normalize_target=False, width=64), output=tmp_path, log=quiet)
    state = read(result.checkpoint).model()
    for path in (tmp_path, result.checkpoint, result.checkpoint / "model.safetensors"):
        model, config = load_model(path)
        assert config.width == 64
        assert not model.normalize_target
        assert not model.training
        assert all(torch.equal(t, state[name]) for name, t in model.state_dict().items())
    with pytest.raises(CheckpointError, match="no whole checkpoint"):
        load_model(tmp_path / "nothing")


def test_a_run_goes_on_in_another_folder(tiny: Make, tmp_path: Path) -> None:
    config = tiny(checkpoint_every=4)
    done = pretrain(config, output=tmp_path / "first", log=quiet)
    half = tmp_path / "first" / "checkpoints" / "step-00000004"
    pretrain(config, output=tmp_path / "second", resume=str(half), log=quiet)
    assert losses(tmp_path / "second") == losses(tmp_path / "first")[4:]
    result = pretrain(config, output=tmp_path / "third", resume=str(done.checkpoint), log=quiet)
    assert read(result.checkpoint).step == 8
    assert result.last_loss is None


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_ends_the_step_and_the_run_goes_on(
    tiny: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, signum: int, code: int
) -> None:
    config = tiny(drop_path=0.3, depth=2, decoder_mask="random")
    pretrain(config, output=tmp_path / "whole", log=quiet)
    before = signal.getsignal(signum)  # SIG_IGN in a shell's background, not Python's own handler
    with monkeypatch.context() as patched:
        interrupt_after(patched, 4, lambda: os.kill(os.getpid(), signum))
        with pytest.raises(InterruptedRunError, match="with 5 of 8 steps done; saved in") as caught:
            pretrain(config, output=tmp_path / "parts", log=quiet)
    assert caught.value.exit_code == code
    assert signal.getsignal(signum) == before
    assert len(losses(tmp_path / "parts")) == 5
    # In the middle of an epoch, read by other processes, told at other steps
    resumed = altered(config, workers=1, log_every=3)
    pretrain(resumed, output=tmp_path / "parts", log=quiet)
    assert losses(tmp_path / "parts") == losses(tmp_path / "whole")
    whole, parts = (
        read(tmp_path / name / "checkpoints" / "step-00000008") for name in ("whole", "parts")
    )
    for one, other in ((whole.model(), parts.model()), (whole.optimizer(), parts.optimizer())):
        assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_corrupt_checkpoint_is_passed_over(tiny: Make, tmp_path: Path) -> None:
    config = tiny(checkpoint_every=2)
    pretrain(config, output=tmp_path, log=quiet)
    expected = losses(tmp_path)
    newest, second, third = (tmp_path / "checkpoints" / f"step-0000000{step}" for step in (8, 6, 4))
    content = bytearray((newest / "model.safetensors").read_bytes())
    content[-10] ^= 1  # one bit of one weight
    (newest / "model.safetensors").write_bytes(content)
    with (second / "optimizer.safetensors").open("r+b") as file:
        file.truncate(100)
    said: list[str] = []
    pretrain(config, output=tmp_path, log=said.append)
    ignored = [line for line in said if line.startswith("ignored")]
    assert len(ignored) == 2
    assert str(newest) in ignored[0]
    assert "optimizer.safetensors has 100 bytes" in ignored[1]
    assert any(f"resumed from {third}" in line for line in said)
    assert losses(tmp_path) == expected


def test_when_no_checkpoint_is_whole_nothing_is_overwritten(tiny: Make, tmp_path: Path) -> None:
    result = pretrain(tiny(), output=tmp_path, log=quiet)
    (result.checkpoint / "state.json").write_text("{")
    with pytest.raises(CheckpointError, match="none of the 1 checkpoints"):
        pretrain(tiny(), output=tmp_path, log=quiet)
    with pytest.raises(CheckpointError, match="already holds a run"):
        pretrain(tiny(), output=tmp_path, resume="never", log=quiet)


def test_another_run_is_not_resumed(tiny: Make, tmp_path: Path, tiny_list: Path) -> None:
    config = tiny(epochs=2)
    pretrain(config, output=tmp_path, log=quiet)
    other = altered(config, base_lr=0.3, seed=1, workers=1)
    with pytest.raises(
        CheckpointError, match=r"optim.base_lr was 0\.2 and is 0\.3; run.seed was 0 and is 1"
    ) as caught:
        pretrain(other, output=tmp_path, log=quiet)
    assert "workers was" not in str(caught.value)
    shorter = tmp_path / "shorter.csv"
    shorter.write_text("".join(tiny_list.read_text().splitlines(keepends=True)[:-1]))
    with pytest.raises(CheckpointError, match=r"entries was \[8\] and is \[7\]"):
        pretrain(altered(config, data=(Source(shorter),)), output=tmp_path, log=quiet)
    # A moved list of the same clips is the same run
    moved = tmp_path / "moved.csv"
    moved.write_text(tiny_list.read_text())
    said: list[str] = []
    pretrain(altered(config, data=(Source(moved),)), output=tmp_path, log=said.append)
    assert said[-1] == "nothing left to do: all 4 steps were done"


def test_a_nan_stops_with_step_clips_and_the_state_before_it(
    tiny: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_videos: Path
) -> None:
    config = tiny(log_every=4, checkpoint_every=3)
    pretrain(config, output=tmp_path / "good", log=quiet)
    forward, count = TrainStep.forward_backward, [0]

    def poisoned(self: TrainStep, *args: Any, **kwargs: Any) -> None:
        forward(self, *args, **kwargs)
        count[0] += 1
        if count[0] == 5:  # step 4, not looked at before step 5 is done
            next(self.model.parameters()).grad[0] = float("nan")

    monkeypatch.setattr(TrainStep, "forward_backward", poisoned)
    with pytest.raises(NonFiniteError, match=r"step 4: .*gradient norm nan") as caught:
        pretrain(config, output=tmp_path / "bad", log=quiet)
    folder = tmp_path / "bad" / "non_finite" / "step-00000004"
    assert str(folder) in str(caught.value)
    names = json.loads((folder / "clips.json").read_text())
    assert len(names) == 4
    assert names[0] in str(caught.value)
    assert str(tiny_videos) in names[0]
    assert "train.csv:" in names[0]
    assert [step for step, *_ in losses(tmp_path / "bad")] == [0, 1, 2, 3, 4]
    assert losses(tmp_path / "bad")[:4] == losses(tmp_path / "good")[:4]
    # Going on from that state, without the poison, gives the good run
    pretrain(config, output=tmp_path / "bad", resume=str(folder), log=quiet)
    assert losses(tmp_path / "bad") == losses(tmp_path / "good")


def test_unreadable_files_are_left_out_counted_and_limited(
    tiny: Make, tmp_path: Path, broken_list: Path
) -> None:
    config = tiny(data=(Source(broken_list),))
    said: list[str] = []
    pretrain(config, output=tmp_path / "run", log=said.append)
    lines = read_metrics(tmp_path / "run" / "metrics.jsonl")
    assert sum(line["failed_clips"] for line in lines) == 4 * 2
    assert all(line["loss"] > 0 for line in lines)
    assert any("failed videos 4" in line for line in said)
    assert "4 of 32 draws could not be read" in said[-1]
    assert len((tmp_path / "run" / "bad_files.rank0.jsonl").read_text().splitlines()) == 4
    strict = altered(config, max_failed_share=0.1)
    with pytest.raises(FailureShareError, match=r"1 of 8 draws \(12.50%"):
        pretrain(strict, output=tmp_path / "strict", log=quiet)
    assert read(tmp_path / "strict" / "checkpoints" / "step-00000002").step == 2
    # What was saved goes on where the share is allowed, and counts what failed before
    said.clear()
    pretrain(config, output=tmp_path / "strict", log=said.append)
    assert "4 of 32 draws could not be read" in said[-1]
    assert losses(tmp_path / "strict") == losses(tmp_path / "run")


def test_places_that_stay_empty_change_nothing(
    tiny: Make, broken_list: Path, tmp_path: Path
) -> None:
    """Seven videos in three micro-batches of three; the empty places are no failed clips."""
    said: list[str] = []
    config = tiny(data=(Source(broken_list),), videos_per_step=7, decoder_mask="random")
    pretrain(config, output=tmp_path / "one", log=quiet)
    pretrain(altered(config, accumulation=3), output=tmp_path / "three", log=said.append)
    assert any("2 of a step's 9 places stay empty" in line for line in said)
    one, three = (read_metrics(tmp_path / name / "metrics.jsonl") for name in ("one", "three"))
    for expected, found in zip(one, three, strict=True):
        for name in ("loss", "grad_norm", "failed_clips", "clips"):
            assert found[name] == pytest.approx(expected[name], rel=1e-4), name
    assert sum(line["failed_clips"] for line in three) > 0


def test_accumulation_gives_the_same_run(tiny: Make, tmp_path: Path) -> None:
    pretrain(tiny(), output=tmp_path / "one", log=quiet)
    pretrain(tiny(accumulation=4), output=tmp_path / "four", log=quiet)
    for one, four in zip(losses(tmp_path / "one"), losses(tmp_path / "four"), strict=True):
        assert four == pytest.approx(one, rel=1e-4)
