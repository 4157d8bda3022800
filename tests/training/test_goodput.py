"""The share of a run's time that went into steps that count."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.runs import interrupt_after, quiet
from videomae_fast.recipes import PretrainConfig
from videomae_fast.training import pretrain
from videomae_fast.training.errors import InterruptedRunError
from videomae_fast.training.goodput import Goodput


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_over_a_restart_with_steps_that_are_made_again(tmp_path: Path) -> None:
    clock, path = Clock(), tmp_path / "goodput.json"
    first = Goodput(path, 0, clock(), clock)
    clock.now += 20
    first.stepped()
    first.stepped()
    first.spend("data", 5.0)
    clock.now += 80
    assert first.look(30, 2.0) == pytest.approx(60 / 100)
    # Killed; 100 s later it goes on from a checkpoint ten steps before
    clock.now += 100
    second = Goodput(path, 20, clock(), clock)
    clock.now += 10
    second.stepped()
    second.spend("data", 1.0)
    clock.now += 40
    assert second.look(40, 99.0) == pytest.approx(40 * 2.0 / 250), "the first look warms up"
    clock.now += 100
    assert second.look(90, 1.0) == 1.0, "never more than all"
    said = json.loads(path.read_text())
    assert (said["starts"], said["redone"], said["furthest"], said["steps"]) == (2, 10, 90, 90)
    assert said["spent"] == {"start": 30.0, "data": 6.0, "checkpoint": 0.0, "evaluation": 0.0}


@pytest.mark.parametrize("content", ["", "[]", '{"starts": "x"}', "{"])
def test_a_file_that_cannot_be_read_is_begun_anew(tmp_path: Path, content: str) -> None:
    path = tmp_path / "goodput.json"
    path.write_text(content)
    clock = Clock()
    found = Goodput(path, 5, clock(), clock)
    clock.now += 10
    assert found.look(10, 1.0) == 1.0
    assert json.loads(path.read_text())["starts"] == 1


def test_a_run_that_is_stopped_and_goes_on_keeps_count(
    tiny: Callable[..., PretrainConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        interrupt_after(patched, 3, lambda: os.kill(os.getpid(), signal.SIGTERM))
        with pytest.raises(InterruptedRunError):
            pretrain(tiny(), output=tmp_path, log=quiet)
    pretrain(tiny(), output=tmp_path, log=quiet)
    said = json.loads((tmp_path / "goodput.json").read_text())
    assert (said["starts"], said["steps"], said["redone"]) == (2, 8, 0)
    assert 0 < said["goodput"] <= 1
    assert said["spent"]["checkpoint"] > 0
    assert said["spent"]["start"] > 0
    assert sum(said["spent"].values()) <= said["wall_seconds"]
