"""``videomae-fast progressive``: the outlook, the table, and several processes."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path

import pytest

from tests.support.labelled import write_set
from tests.support.launches import COMMAND, Host
from tests.support.plans import STAGES, write_plan
from tests.support.runs import losses
from videomae_fast.cli import main

Lists = tuple[Path, Path]


@pytest.fixture(scope="module")
def lists(tmp_path_factory: pytest.TempPathFactory) -> Lists:
    return write_set(tmp_path_factory.mktemp("squares"), 4, 2)


@pytest.fixture
def plan(lists: Lists, tmp_path: Path) -> Path:
    return write_plan(tmp_path / "plan", lists, two__schedule__epochs=1, four__schedule__epochs=1)


def progressive(*words: object) -> int:
    return main(["progressive", *map(str, words)])


def test_a_dry_run_tells_clips_steps_and_rates(
    plan: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert progressive(plan, "--output", tmp_path / "out", "--dry-run") == 0
    assert not (tmp_path / "out").exists()
    told = capsys.readouterr().out
    for line in (
        "1. own\n   pretrain, from new weights\n",
        "   16 videos x 2 clips an epoch; 4 steps of 8 videos (16 clips), 2 an epoch: 64 clips in",
        "   learning rate 0.00156 after 0 steps, falling to 3.13e-07; weight decay 0.05\n",
        "2. four\n   finetune, from the last weights of own\n   head: new\n",
        "   4 classes; 8 videos are validated after each epoch\n",
        "3. two\n   finetune, from the last weights of four\n   head: 2 rows of 4, by name\n",
        "4. two-test\n   test, from the last weights of two\n",
        "   4 videos x 2 segments x 1 crops: 8 clips\n",
    ):
        assert line in told
    missing = ["--set", "two.data.classes=gone.txt", "--output", tmp_path / "out", "--dry-run"]
    assert progressive(plan, *missing, "--set", "optim.weight_decay_end=0.2") == 1
    told = capsys.readouterr().out
    assert "in the way: classes gone.txt: can't be read" in told
    assert "weight decay 0.05 to 0.2" in told


def test_the_table_and_the_picture(
    plan: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out"
    assert progressive(plan, "--output", output) == 0
    told = capsys.readouterr().out
    table = (output / "results.txt").read_text()
    assert table in told
    assert [line.split()[0] for line in table.splitlines()] == ["stage", *STAGES]
    assert (output / "results.png").read_bytes().startswith(b"\x89PNG")
    assert progressive(plan, "--output", output, "--dry-run") == 0
    assert "4. two-test, is finished\n" in capsys.readouterr().out
    assert progressive(plan, "--output", output, "--set", "optim.base_lr=1") == 2
    assert "optim.base_lr was 0.05 and is 1.0" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["gone.toml", "--output", "out"], "no recipe file gone.toml"),
        (["vit_g_progresive", "--output", "out"], "did you mean vit_g_progressive"),
        (["vit_g_progressive"], "--output is missing"),
        (["vit_g_progressive", "--output", "out"], "stage 'hybrid', before anything begins"),
    ],
)
def test_mistakes(
    words: list[str],
    told: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["progressive", *words]) == 2
    assert told in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_two_processes_give_the_table_of_one(plan: Path, host: Host, tmp_path: Path) -> None:
    assert progressive(plan, "--output", tmp_path / "one") == 0
    words = ["progressive", str(plan), "--output", str(tmp_path / "two")]
    for start in range(2):  # the second time there is nothing left to do
        said = host.start(2, COMMAND, words, tmp_path / f"{start}.log").finish()
    assert "stage 4 of 4, two-test: is finished" in said
    for stage in ("own", "four", "two"):
        for one, two in zip(*(losses(tmp_path / n / stage) for n in ("one", "two")), strict=True):
            assert two == pytest.approx(one, rel=1e-3)
    one, two = (json.loads((tmp_path / n / "results.json").read_text()) for n in ("one", "two"))
    assert [row["stage"] for row in two] == list(STAGES)
    for mine, other in zip(two, one, strict=True):
        assert (mine["steps"], mine["head"]) == (other["steps"], other["head"])
        for kind in ("validation", "test"):
            if other[kind] is not None:
                assert mine[kind]["videos"] == other[kind]["videos"]


def test_killed_in_a_stage_it_ends_with_the_result_of_an_uninterrupted_one(
    plan: Path, host: Host, tmp_path: Path
) -> None:
    changes = ("--set", "four.schedule.epochs=10", "--set", "run.checkpoint_every=3")
    words = ["progressive", str(plan), "--output", str(tmp_path / "killed"), *changes]
    run = host.alone(COMMAND, words, tmp_path / "log")
    while "[four] step 8/20" not in run.said():
        assert run.poll() is None, run.said()
        time.sleep(0.01)
    run.kill()
    run.finish(-signal.SIGKILL)
    assert len(losses(tmp_path / "killed/four")) < 20
    for name in ("killed", "whole"):
        assert progressive(plan, "--output", tmp_path / name, *changes) == 0
    killed, whole = (tmp_path / name for name in ("killed", "whole"))
    assert (killed / "results.json").read_text() == (whole / "results.json").read_text()
    for stage in ("own", "four", "two"):
        assert losses(killed / stage) == losses(whole / stage)
