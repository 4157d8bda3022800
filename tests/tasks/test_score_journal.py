"""What a test has scored so far: whole lines alone count, of the same test."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from videomae_fast.errors import UsageError
from videomae_fast.tasks.score_journal import ScoreJournal, from_text
from videomae_fast.training.parallel.world import World

MADE_FROM: dict[str, Any] = {"weights": {"a": "12"}, "stride": 4}


def journal(folder: Path, rank: int = 0, **made_from: Any) -> ScoreJournal:
    world = World.start("cpu")
    object.__setattr__(world, "rank", rank)
    return ScoreJournal(folder, world, lambda: {**MADE_FROM, **made_from})


def write(folder: Path, places: range, rank: int = 0) -> None:
    with journal(folder, rank) as file:
        for place in places:
            file.add(place, scores=np.array([[place, 0.1]]), loss=float("nan"), words='"a", "b"')


def test_values_come_back_whatever_the_processes_were(tmp_path: Path) -> None:
    write(tmp_path, range(3), 0)
    write(tmp_path, range(3, 6), 1)
    write(tmp_path, range(6, 8), 0)
    assert len(list((tmp_path / "scores").iterdir())) == 3
    with journal(tmp_path) as file:
        assert file.before == frozenset(range(8))
    found = file.scored({1, 4, 7})
    assert sorted(found) == [1, 4, 7]
    assert from_text(found[4]["scores"]).tolist() == [4.0, 0.1]
    assert found[4]["words"] == '"a", "b"'
    assert np.isnan(found[4]["loss"])


def test_a_damaged_line_is_none(tmp_path: Path) -> None:
    """Each byte of a line changed, and each place that it may be cut off at."""
    write(tmp_path, range(2))
    (path,) = (tmp_path / "scores").iterdir()
    first, second, _ = path.read_bytes().split(b"\n")
    for at in range(len(second)):
        for damaged in (
            second[:at] + bytes([second[at] ^ 1]) + second[at + 1 :],
            second[:at] + bytes([second[at] ^ 128]) + second[at + 1 :],
            second[:at],
        ):
            path.write_bytes(first + b"\n" + damaged)
            with journal(tmp_path) as file:
                assert file.before == {0}, damaged
            for extra in (tmp_path / "scores").glob("rank0.[1-9]*"):
                extra.unlink()


def test_scores_that_are_not_there_are_missed(tmp_path: Path) -> None:
    write(tmp_path, range(2))
    with journal(tmp_path) as file:
        pass
    with pytest.raises(UsageError, match="has not all that was scored, 2 of 3: all processes"):
        file.scored({0, 1, 2})


@pytest.mark.parametrize("content", [None, "{", "[]", '{"stride": 4}'])
def test_another_test_is_refused(content: str | None, tmp_path: Path) -> None:
    write(tmp_path, range(2))
    if content is not None:
        (tmp_path / "test.json").write_text(content)
        with pytest.raises(UsageError, match="holds a test with other weights"):
            journal(tmp_path)
    else:
        with pytest.raises(UsageError, match="holds a test with other stride: name another"):
            journal(tmp_path, stride=2)
        assert json.loads((tmp_path / "test.json").read_text()) == MADE_FROM
