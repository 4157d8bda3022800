"""The best weights belong to the history that is kept, whichever checkpoint a run goes on from."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.support.labelled import tiny_config
from tests.support.runs import quiet
from videomae_fast.interop import load_weights
from videomae_fast.tasks.best import BestWeights
from videomae_fast.tasks.classification import Classification, finetune
from videomae_fast.tasks.validation import History, Numbers
from videomae_fast.training.checkpoint import read

Lists = tuple[Path, Path]


def run(
    lists: Lists,
    output: Path,
    tops: Mapping[int, float],
    patch: pytest.MonkeyPatch,
    *,
    resume: str = "auto",
    **options: Any,
) -> list[str]:
    """A run of 4 steps an epoch whose validation gives top-1 by the epoch, from 1; what it says."""
    said: list[str] = []
    done = iter(sorted(tops))

    def numbers(*_: Any) -> Numbers:
        top = tops[next(done)]
        return Numbers(top, top, 1.0, 24, 0)

    given = {
        "schedule__epochs": max(tops, default=0),
        "schedule__warmup_epochs": 0,
        "mix__mixup": 0.0,
    }
    given |= {"mix__cutmix": 0.0, "run__checkpoint_every": 4, "run__keep_checkpoints": 9, **options}
    with patch.context() as within:
        within.setattr(Classification, "_numbers", numbers)
        finetune(tiny_config(*lists, **given), output=output, resume=resume, log=said.append)
    return said


def best_is(output: Path, step: int) -> bool:
    best = load_weights(output / "best.safetensors")
    there = read(output / "checkpoints" / f"step-{step:08d}").model()
    return all(torch.equal(best[name], tensor) for name, tensor in there.items())


def bests(output: Path) -> list[str]:
    return sorted(path.name[5:13] for path in (output / "best").iterdir())


@pytest.fixture(scope="module")
def made(lists: Lists, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose third and last epoch is the best; the first was before."""
    output = tmp_path_factory.mktemp("best") / "run"
    with pytest.MonkeyPatch.context() as patch:
        run(lists, output, {1: 0.5, 2: 0.4, 3: 0.9}, patch)
    assert best_is(output, 12)
    assert bests(output) == ["00000004", "00000012"]
    assert (output / "best/step-00000012.safetensors").samefile(output / "best.safetensors")
    return output


@pytest.fixture
def again(made: Path, tmp_path: Path) -> Path:
    return shutil.copytree(made, tmp_path / "run")


def test_going_back_gives_back_what_was_the_best_there(
    again: Path, lists: Lists, monkeypatch: pytest.MonkeyPatch
) -> None:
    back = str(again / "checkpoints/step-00000008")
    run(lists, again, {3: 0.45}, monkeypatch, resume=back)
    assert best_is(again, 4)
    assert [(one.step, one.best) for one in History(again).epochs] == [
        (4, "weights"), (8, None), (12, None),
    ]  # fmt: skip
    run(lists, again, {4: 0.6}, monkeypatch)
    assert best_is(again, 16)


def test_steps_that_are_made_again_are_validated_again(
    again: Path, lists: Lists, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in ("step-00000008", "step-00000012"):  # as if killed before it was written
        shutil.rmtree(again / "checkpoints" / folder)
    run(lists, again, {2: 0.7, 3: 0.6}, monkeypatch)
    assert [one.top1 for one in History(again).epochs] == [0.5, 0.7, 0.6]
    assert best_is(again, 8)


def test_only_what_a_checkpoint_could_go_back_to_is_kept(
    lists: Lists, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tops = {1: 0.1, 2: 0.2, 3: 0.3, 4: 0.4, 5: 0.5}
    run(lists, tmp_path, tops, monkeypatch, run__keep_checkpoints=2)
    assert bests(tmp_path) == ["00000016", "00000020"]


def test_a_run_that_kept_the_newest_alone_says_so(
    again: Path, lists: Lists, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.rmtree(again / "best")
    there = shutil.copytree(again, again.with_name("there"))
    run(lists, there, {4: 0.2}, monkeypatch)  # which goes on from the end
    assert best_is(there, 12)
    back = str(again / "checkpoints/step-00000008")
    said = run(lists, again, {3: 0.45}, monkeypatch, resume=back)
    assert any("the weights after 4 steps, the best until step 8, are not there" in s for s in said)
    assert best_is(again, 12)  # the best of those that are there, of a history that is kept
    assert [one.best for one in History(again).epochs] == [None, None, "weights"]


def test_without_a_best_there_is_no_file(
    again: Path, lists: Lists, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in (again / "checkpoints").iterdir():
        shutil.rmtree(folder)
    history = History(again)
    assert BestWeights(again).return_to(0, history, validates=False) == []
    BestWeights(again).follow(history, [])
    assert not (again / "best.safetensors").exists()
    assert bests(again) == []
    assert (again / "validation.jsonl").read_text() == ""


@pytest.mark.parametrize("where", ["write", "add", "follow"])
def test_a_stop_while_the_best_is_kept(
    where: str, again: Path, lists: Lists, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(History if where == "add" else BestWeights, where, stop)
        if where == "follow":  # which is called when the run begins, too
            patch.setattr(Classification, "_return_to", quiet_return)
        with pytest.raises(KeyboardInterrupt):
            run(lists, again, {4: 0.95}, patch)
    # the same epoch, validated where its line was not written
    run(lists, again, {} if where == "follow" else {4: 0.95}, monkeypatch, schedule__epochs=4)
    assert best_is(again, 16)
    assert bests(again) == ["00000004", "00000012", "00000016"]


def quiet_return(self: Classification, step: int) -> None:
    quiet("")
