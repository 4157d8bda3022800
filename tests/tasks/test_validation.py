"""Numbers of a validation, whoever scored the videos, and warnings."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from videomae_fast import MAEConfig, VideoClassifier
from videomae_fast.data import ListError
from videomae_fast.data.loader.pipeline import every_entry
from videomae_fast.evaluation.multi_view import score_videos
from videomae_fast.tasks.validation import (
    IN_TEST,
    Epoch,
    History,
    Numbers,
    Scored,
    at_chance,
    getting_worse,
    waited,
)


def _numbers(top1: float | None, videos: int = 100) -> Numbers:
    return Numbers(top1, top1, 1.0, videos, 0)


def test_shards_of_any_number_of_processes_give_the_same(lists: tuple[Path, Path]) -> None:
    from tests.support.labelled import tiny_config
    from videomae_fast.tasks.labelled import validation_clips

    torch.manual_seed(0)
    config = MAEConfig(image_size=32, frames=4, width=48, depth=1, heads=2)
    model = VideoClassifier(config, 4, init_scale=1.0)
    dataset = validation_clips(tiny_config(*lists))
    assert dataset is not None
    draws, found = every_entry(dataset), []
    for processes, clips in ((1, 24), (2, 5), (3, 1)):
        parts = [draws[rank::processes] for rank in range(processes)]
        scored = [
            Scored.of(one)
            for part in parts
            for one in score_videos(model, dataset, part, clips=clips)
        ]
        assert [s.place for s in scored] == [d.position for part in parts for d in part]
        found.append(Numbers.of(reversed([*scored, scored[0]])))  # one of them twice
    assert model.training
    for other in found[1:]:
        assert other.loss == pytest.approx(found[0].loss, rel=1e-6)
        assert replace(other, loss=None) == replace(found[0], loss=None)
    assert found[0].videos == 24


def test_history_drops_what_is_made_again(tmp_path: Path) -> None:
    history = History(tmp_path)
    for step, top1 in ((2, 0.5), (4, 0.4), (6, 0.6)):
        average = _numbers(0.45) if step == 4 else None
        history.add(history.judged(step, _numbers(top1), average))
    assert [one.best for one in history.epochs] == ["weights", None, "weights"]
    assert waited(history.epochs) == 0
    again = History(tmp_path)
    assert again.epochs == history.epochs
    line = again.judged(4, _numbers(0.3), _numbers(0.7))
    assert line.best == "average"
    again.add(line)
    assert [one.step for one in History(tmp_path).epochs] == [2, 4]
    again.path.write_text("{}\n")
    with pytest.raises(ListError, match=r"validation\.jsonl:1: found"):
        History(tmp_path)


def test_warnings() -> None:
    told = at_chance(0.25, 100, 4)
    assert told is not None
    assert all(f"{cause}" in told for cause in ("number the classes", "normalised", "began from"))
    assert at_chance(0.6, 100, 4) is None
    assert at_chance(None, 0, 4) is None
    assert at_chance(1.0, 100, 1) is None
    assert at_chance(0.5, 2, 4) == (
        "note: top-1 50.0% of 2 videos: too few to tell from guessing among 4 classes (25.0%)"
    )
    for cause in ("numbers the classes", "normalised", "head was never trained"):
        assert cause in str(at_chance(0.3, 100, 4, IN_TEST))
    epochs = [Epoch(2, _numbers(0.7), None, "weights"), Epoch(4, _numbers(0.3), None, None)]
    warning = getting_worse(epochs, {2: 1.0, 4: 0.5})
    assert warning is not None
    assert "fell from 70.0% after 2 steps to 30.0%" in warning
    assert getting_worse(epochs, {2: 1.0, 4: 1.5}) is None  # training got worse too
    assert getting_worse(epochs[:1], {2: 1.0}) is None
