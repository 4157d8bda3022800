"""Plans that run: weights handed on, stops anywhere, what is finished, what is refused."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.support.plans import STAGES, write_plan
from tests.support.runs import interrupt_after, losses, quiet
from videomae_fast.errors import UsageError, WeightsError
from videomae_fast.interop import load_weights
from videomae_fast.recipes.plan import Plan, read_plan
from videomae_fast.tasks import testing
from videomae_fast.tasks.progressive import chain
from videomae_fast.tasks.progressive.chain import run_plan
from videomae_fast.tasks.progressive.record import Record, read_record
from videomae_fast.training.errors import InterruptedRunError

Lists = tuple[Path, Path]


@pytest.fixture(scope="module")
def plan(lists: Lists, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_plan(tmp_path_factory.mktemp("plan"), lists, two__schedule__epochs=1)


@pytest.fixture(scope="module")
def whole(plan: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)  # as in the tests: matmuls round by their threads
    output = tmp_path_factory.mktemp("chain") / "whole"
    run_plan(read_plan(plan), output, log=quiet)
    return output


@pytest.fixture
def again(whole: Path, tmp_path: Path) -> Path:
    return shutil.copytree(whole, tmp_path / "again")


def record(output: Path, stage: str) -> Record:
    found = read_record(output / stage)
    assert found is not None
    return found


def test_weights_flow_from_stage_to_stage(whole: Path) -> None:
    found = {name: record(whole, name) for name in STAGES}
    for name, source in (("four", "own"), ("two", "four"), ("two-test", "two")):
        origin, before = found[name].origin, found[source].outcome
        assert origin is not None
        assert before is not None
        assert (origin.stage, origin.sha256) == (source, before.sha256["last"])
    state = json.loads((whole / "two/checkpoints/step-00000002/state.json").read_text())
    assert state["init"]["file"] == str(whole / "four/checkpoints/step-00000008/model.safetensors")
    rows = json.loads((whole / "results.json").read_text())
    assert [row["stage"] for row in rows] == list(STAGES)
    assert rows[2]["head"] == "rows of 2 of its 4 classes, by name"
    test = json.loads((whole / "two-test/result.json").read_text())
    assert rows[3]["test"]["top1"] == test["top1"]
    assert rows[0]["loss"] == losses(whole / "own")[-1][1]
    text, table = (whole / "results.txt").read_text(), (whole / "results.md").read_text()
    assert len(text.splitlines()) == len(table.splitlines()) - 1 == 5
    assert f"{test['top1']:.2%}" in text


def stopping(*_: Any, **__: Any) -> Iterator[Any]:
    """In the place of score_videos: gives some, and is stopped."""
    scored = real(*_, **__)
    for _ in range(3):
        yield next(scored)
    raise KeyboardInterrupt


real = testing.score_videos


def test_stops_anywhere_leave_an_equal_result(
    plan: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    output = tmp_path / "stopped"
    for step in (0, 3, 7, 1):  # of what is left: before own is done, in four, at its end, in two
        with monkeypatch.context() as patch:
            interrupt_after(patch, step, lambda: os.kill(os.getpid(), signal.SIGTERM))
            with pytest.raises(InterruptedRunError):
                run_plan(read_plan(plan), output, log=quiet)
    with monkeypatch.context() as patch:  # a stage is done, and not yet noted
        patch.setattr(chain, "_trained", stop)
        with pytest.raises(KeyboardInterrupt):
            run_plan(read_plan(plan), output, log=quiet)
    with monkeypatch.context() as patch:
        patch.setattr(testing, "score_videos", stopping)
        with pytest.raises(KeyboardInterrupt):
            run_plan(read_plan(plan), output, log=quiet)
    said: list[str] = []
    run_plan(read_plan(plan), output, log=said.append)
    assert "[two-test] 3 of 12 videos were scored before" in said
    assert (output / "results.json").read_text() == (whole / "results.json").read_text()
    for name in ("own", "four", "two"):
        assert losses(output / name) == losses(whole / name)
        mine, theirs = record(output, name).outcome, record(whole, name).outcome
        assert mine == theirs  # weights by their SHA-256, and scores


def test_what_is_finished_is_left_out(
    plan: Path, again: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chain, "_run", None)
    said: list[str] = []
    rows = run_plan(read_plan(plan, ["run.log_every=7"]), again, log=said.append)  # changes nothing
    assert [row.stage for row in rows] == list(STAGES)
    assert said == [f"stage {i} of 4, {name}: is finished" for i, name in enumerate(STAGES, 1)]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (["four.optim.base_lr=3"], "stage 'four' is finished.*: optim.base_lr was 0.05 and is 3.0"),
        (["own.schedule.epochs=3"], "stage 'own' is finished.*: schedule.epochs was 2 and is 3"),
        (["two-test.views.crops=2"], "stage 'two-test' is fin.*: views.crops was 1 and is 2"),
        (["run.seed=4"], "run.seed was 0 and is 4"),
    ],
)
def test_a_finished_stage_can_not_be_changed(
    changes: list[str], told: str, plan: Path, again: Path
) -> None:
    before = (again / "four/stage.json").read_bytes()
    with pytest.raises(UsageError, match=told):
        run_plan(read_plan(plan, changes), again, log=quiet)
    assert (again / "four/stage.json").read_bytes() == before


def test_lists_of_finished_stages_may_move_and_not_change(
    plan: Path, again: Path, lists: Lists, tmp_path: Path
) -> None:
    moved = tmp_path / "moved.csv"
    moved.write_bytes(lists[0].read_bytes())
    text = plan.read_text()
    elsewhere = tmp_path / "elsewhere.toml"
    elsewhere.write_text(text.replace(str(lists[0]), str(moved)))
    run_plan(read_plan(elsewhere), again, log=quiet)
    moved.write_text(moved.read_text() + "another.mp4 0\n")
    with pytest.raises(UsageError, match=r"moved.csv is another list than .*train.csv was"):
        run_plan(read_plan(elsewhere), again, log=quiet)
    moved.unlink()
    with pytest.raises(UsageError, match=r"train.csv is now .*moved.csv, which is not there"):
        run_plan(read_plan(elsewhere), again, log=quiet)


def test_a_stage_that_is_made_again_has_to_give_the_same_weights(
    plan: Path, again: Path, lists: Lists
) -> None:
    shutil.rmtree(again / "four")
    run_plan(read_plan(plan), again, log=quiet)  # makes it again, equal, so two is still its own
    shutil.rmtree(again / "four")
    with pytest.raises(UsageError, match=r"'two' began from .* were made again and are other ones"):
        run_plan(read_plan(plan, ["four.optim.base_lr=0.1"]), again, log=quiet)


def test_weights_that_were_exchanged_are_refused(plan: Path, again: Path) -> None:
    shutil.rmtree(again / "two")
    shutil.rmtree(again / "two-test")
    folder = again / "four/checkpoints"
    shutil.rmtree(folder / "step-00000008")
    shutil.copytree(again / "own/checkpoints/step-00000008", folder / "step-00000008")
    with pytest.raises(WeightsError, match=r"is not what stage 'four' left"):
        run_plan(read_plan(plan), again, log=quiet)


def test_the_best_weights_are_handed_on_where_asked_for(
    plan: Path, again: Path, tmp_path: Path
) -> None:
    best = tmp_path / "best.toml"
    best.write_text(plan.read_text().replace('name = "two"\n', 'name = "two"\nweights = "best"\n'))
    with pytest.raises(UsageError, match="weights was 'last' and is 'best'"):
        run_plan(read_plan(best), again, log=quiet)
    shutil.rmtree(again / "two")
    shutil.rmtree(again / "two-test")
    run_plan(read_plan(best), again, log=quiet)
    origin, outcome = record(again, "two").origin, record(again, "four").outcome
    assert origin is not None
    assert outcome is not None
    assert origin.sha256 == outcome.sha256["best"]
    state = json.loads((again / "two/checkpoints/step-00000002/state.json").read_text())
    assert state["init"]["file"] == str(again / "four/best.safetensors")
    assert load_weights(again / "four/best.safetensors")


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (["own.model.width=32"], "stage 'four': the weights of stage 'own' don't fit: width is 32"),
        (["four.model.frames=8"], r"give set\.model\.trained_frames = 4"),
        (["own.model.image_size=33"], "stage 'own': the model and masks don't fit"),
        (["two.optim.videos_per_step=40"], "stage 'two', before anything begins"),
        (["two.data.classes=gone.txt"], "stage 'two', before anything begins: classes gone.txt"),
    ],
)
def test_what_can_not_be_is_refused_before_anything_begins(
    changes: list[str], told: str, plan: Path, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=told):
        run_plan(read_plan(plan, changes), tmp_path / "out", log=quiet)
    assert not (tmp_path / "out").exists()


def test_a_damaged_record_is_told(plan: Path, again: Path) -> None:
    (again / "own/stage.json").write_text("{")
    with pytest.raises(UsageError, match=r"own/stage.json: can't be read .*move the stage's"):
        run_plan(read_plan(plan), again, log=quiet)


def test_a_plan_is_a_value(plan: Path) -> None:
    found: Plan = read_plan(plan)
    assert found == read_plan(plan)
    assert found["two"].source == "four"


STUDENT = """
[[stages]]
name = "student"
task = "distill"
from = "none"
set.distillation.teacher = "{teacher}"
set.data.lists = ["{folder}/two-train.csv"]
set.data.validation = ["{folder}/two-val.csv"]
set.data.classes = "{folder}/two.txt"
set.model.depth = 1
set.model.drop_path = 0
set.augment.operations = 0
set.schedule.epochs = 1
set.schedule.warmup_epochs = 0
"""


def test_a_stage_that_is_added_is_what_is_left_to_do(
    plan: Path, again: Path, tmp_path: Path
) -> None:
    longer = tmp_path / "longer.toml"
    teacher = again / "two/best.safetensors"
    longer.write_text(plan.read_text() + STUDENT.format(teacher=teacher, folder=plan.parent))
    said: list[str] = []
    rows = run_plan(read_plan(longer), again, log=said.append)
    assert [line for line in said if not line.startswith("[")] == [
        *(f"stage {i} of 5, {name}: is finished" for i, name in enumerate(STAGES, 1)),
        "stage 5 of 5, student: distill",
    ]
    assert rows[-1].steps == 2
    assert rows[-1].validation is not None
    assert rows[-1].validation.videos == 12
    other = ["student.distillation.teacher=other.safetensors"]
    with pytest.raises(UsageError, match=r"distillation.teacher was .* and is 'other.safetensors'"):
        run_plan(read_plan(longer, other), again, log=quiet)
