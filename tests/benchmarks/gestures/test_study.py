"""The study by folds: what is held out, what a cell is, and what the table says."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from benchmarks.gestures import study
from benchmarks.gestures.arms import ARMS, FULL, TINY, Fold, labelled_config, shorter
from benchmarks.gestures.folds import clips_of, fold_numbers, write_lists
from benchmarks.report.gestures import gestures_table, over_folds, plot_gestures
from tests.support.labelled import in_folds
from videomae_fast.recipes import FinetuneConfig, PretrainConfig, changed


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return in_folds(tmp_path_factory.mktemp("set"))


def test_a_fold_is_in_neither_kind_of_training(data, tmp_path):
    clips = clips_of(data)
    assert fold_numbers(clips) == [0, 1, 2]
    lists = write_lists(clips, 1, tmp_path)
    held_out = {line.split()[0] for line in lists.validation.read_text().splitlines()}
    assert len(held_out) == 4
    for training, count in ((lists.training, 8), (lists.pretraining, 9)):
        lines = training.read_text().splitlines()
        assert len(lines) == count
        assert not held_out & {line.split()[0] for line in lines}


def test_a_missing_clip_is_named(data, tmp_path):
    (tmp_path / "groups.csv").write_text("path,label,fold\nnone.mp4,0,0\n")
    with pytest.raises(FileNotFoundError, match=r"none\.mp4"):
        clips_of(tmp_path)


@pytest.mark.parametrize("settings", [FULL, TINY])
def test_the_settings_are_fields_of_both_runs(settings, data, tmp_path):
    values = {**settings.model, **settings.pretraining}
    assert changed(PretrainConfig(), values).masks.encoder_ratio == 0.75
    fold = Fold(tuple(clips_of(data)), data, 0, 0, tmp_path)
    config = labelled_config(fold, settings)
    assert isinstance(config, FinetuneConfig)
    assert config.augment.flip == 0  # left and right are classes


def test_cells_are_done_once_and_told_in_a_table(data, tmp_path, monkeypatch, capsys):
    words = ["--tiny", "--data", str(data), "--folds", "0", "--threads", "1",
             "--work", str(tmp_path / "work"), "--out", str(tmp_path / "out")]  # fmt: skip
    assert study.main(words) == 0
    cells = sorted(path.name for path in (tmp_path / "out" / study.CELLS).iterdir())
    assert cells == [f"fold-0-seed-0-{arm.replace(' ', '-')}.json" for arm in sorted(ARMS)]
    monkeypatch.setattr(study, "run_arm", None)  # all are there
    assert study.main(words) == 0
    with pytest.raises(SystemExit):
        study.main([*words, "--finetuning-epochs", "2"])
    assert "is of other settings" in capsys.readouterr().err
    path = max((tmp_path / "out").glob("gestures-*.json"))
    record = json.loads(path.read_text())
    assert {cell["videos"] for cell in record["cells"]} == {4}
    assert all(len(cell["right"]) == 4 for cell in record["cells"])


def cell(fold, arm, accuracy):
    return {"fold": fold, "seed": 0, "arm": arm, "accuracy": accuracy, "videos": 40,
            "seconds": 60.0, "pretraining_seconds": 0.0}  # fmt: skip


def record_of(scratch, pretrained):
    machine = {"cpu": "a", "threads": 2, "processor": {"name": "a"}}
    cells = [cell(i, "from scratch", value) for i, value in enumerate(scratch)]
    cells += [cell(i, "pre-trained", value) for i, value in enumerate(pretrained)]
    settings = {"tiny": False, **json.loads(json.dumps(FULL.to_dict()))}
    return {"cells": cells, "settings": settings, "classes": 10, "machine": machine,
            "date": "2026-01-01T00:00:00", "commit": "abc", "command": "c"}  # fmt: skip


def test_a_gain_is_called_one_only_above_the_spread_of_folds(tmp_path):
    clear = gestures_table(record_of([0.3, 0.4, 0.35], [0.5, 0.62, 0.54]))
    assert "| from scratch | 30.0 | 40.0 | 35.0 | **35.0** | 5.0 |" in clear
    assert ": more than two standard errors above none" in clear
    doubtful = gestures_table(record_of([0.3, 0.4, 0.35], [0.5, 0.3, 0.35]))
    assert ": no more than two standard errors above none" in doubtful
    assert plot_gestures(record_of([0.3, 0.4], [0.5, 0.3]), tmp_path / "a.png").exists()


def test_seeds_of_a_fold_count_as_one_fold():
    mean, deviation = over_folds({(0, 0): 0.2, (0, 1): 0.4, (1, 0): 0.5})
    assert mean == pytest.approx(0.4)
    assert deviation == pytest.approx(0.2 / 2**0.5)


def test_fewer_epochs_are_other_settings():
    other = shorter(FULL, 4, None)
    assert other.pretraining["schedule.epochs"] == 4
    assert other.pretraining["schedule.warmup_epochs"] == 1
    assert replace(other, pretraining=FULL.pretraining) == FULL
