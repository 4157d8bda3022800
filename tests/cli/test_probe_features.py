"""``probe-features`` from stored features and lists to a table and a JSON."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from videomae_fast.cli import main
from videomae_fast.data.files import write_lines
from videomae_fast.evaluation.labelled_features import FeatureFolder
from videomae_fast.evaluation.stored import MADE_FROM, write_features

WIDTH = 8


def store(folder: Path, path: str, values: np.ndarray, weights: str = "w") -> None:
    about = {MADE_FROM: {"video": {"path": path}, "weights": weights}}
    array = folder / f"{Path(path).stem}.npy"
    assert list(write_features(array, values.shape, [values], about)) == [len(values)]


def write_list(path: Path, rows: Sequence[tuple[str, int]]) -> Path:
    write_lines(path, [f"{video} {label}\n" for video, label in rows])
    return path


@pytest.fixture
def place(tmp_path: Path) -> tuple[Path, Path, Path]:
    """Features [windows, tokens, width] that tell two classes apart; the lists."""
    rng = np.random.default_rng(0)
    rows = [(f"{i}.mp4", i % 2) for i in range(40)]
    for video, label in rows:
        values = rng.normal(size=(2, 3, WIDTH))
        values[..., : WIDTH // 2] += 3 * label - 1.5
        store(tmp_path / "features", video, values.astype(np.float32))
    lists = [write_list(tmp_path / f"{n}.csv", rows[s]) for n, s in
             (("train", slice(0, 24)), ("val", slice(24, 40)))]  # fmt: skip
    return tmp_path / "features", lists[0], lists[1]


def probe(*words: object) -> int:
    try:
        return main(["probe-features", *map(str, words)])
    except SystemExit as stop:
        return int(stop.code or 0)


def test_all_kinds_learn_and_are_told(
    place: tuple[Path, Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "scores" / "probes.json"
    words = ["--probe", "linear", "attentive", "neighbours", "--rates", 0.01, 0.003, "--decays",
             0.01, "--heads", 2, "--depth", 1, "--neighbours", 1, 3, "--output", out,
             "--batch", 8]  # fmt: skip
    assert probe(*place, *words, "--device", "cpu") == 0
    shown = capsys.readouterr().out
    assert "24 videos to learn from, 16 scored, 2 classes" in shown
    assert "3-nearest" in shown
    assert "warning" not in shown
    told = json.loads(out.read_text())
    assert set(told["probes"]) == {"linear", "attentive", "neighbours"}
    for kind, count in (("linear", 2), ("attentive", 2), ("neighbours", 2)):
        scores = told["probes"][kind]["scores"]
        assert len(scores) == count
        assert scores[0]["accuracy"] >= 0.9
    assert told["made_from"] == {"weights": "w"}


def test_chance_is_told(place: tuple[Path, Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    features, train, _ = place
    rows = [(f"{i}.mp4", 1 - i % 2) for i in range(40)]
    turned = write_list(train.with_name("turned.csv"), rows)
    assert probe(features, train, turned, "--device", "cpu") == 0
    shown = capsys.readouterr().out
    assert re.search(r"warning: linear: accuracy \d+\.\d% on 40 videos is chance level", shown)
    assert "warning: neighbours:" in shown


def test_vectors_are_means_and_tokens_of_the_middle_window(tmp_path: Path) -> None:
    values = np.arange(3 * 2 * 4, dtype=np.float32).reshape(3, 2, 4)
    store(tmp_path / "f", "a.mp4", values)
    found = FeatureFolder(tmp_path / "f").of_list(write_list(tmp_path / "l.csv", [("a.mp4", 5)]))
    assert torch.equal(found.vectors[0], torch.from_numpy(values.mean((0, 1))))
    assert found.tokens is not None
    assert torch.equal(found.tokens[0], torch.from_numpy(values[1]))
    assert found.labels.tolist() == [5]


def test_what_is_missing_is_named_or_left_out(
    place: tuple[Path, Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    features, train, validation = place
    (features / "30.npy").unlink()
    assert probe(features, train, validation) == 1
    shown = capsys.readouterr().err
    assert "val.csv:7: 30.mp4 has no features" in shown
    write_lines(features / "failures.jsonl", ['{"path": "30.mp4", "reason": "torn"}\n'])
    assert probe(features, train, validation, "--device", "cpu") == 0
    shown = capsys.readouterr().out
    assert f"left out, no features: {validation}:7: 30.mp4" in shown
    assert "15 scored" in shown


def test_features_of_two_kinds_are_refused(
    place: tuple[Path, Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    store(place[0], "other.mp4", np.zeros((1, WIDTH), np.float32), weights="others")
    assert probe(*place) == 2
    assert "are of different weights or settings" in capsys.readouterr().err


def test_both_lists_may_have_their_own_folder(
    place: tuple[Path, Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    apart = tmp_path / "apart"
    for i in range(24, 40):
        store(apart, f"{i}.mp4", np.load(place[0] / f"{i}.npy"))
        (place[0] / f"{i}.npy").unlink()
    assert probe(*place, "--validation-features", apart, "--device", "cpu") == 0
    assert "16 scored" in capsys.readouterr().out
    other = tmp_path / "other"
    store(other, "24.mp4", np.zeros((1, WIDTH), np.float32), weights="others")
    assert probe(*place, "--validation-features", other) == 2
    assert "has features of other weights or settings than" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--probe", "attentive", "--heads", "3"], "--heads 3 does not divide"),
        (["--epochs", "0"], "--epochs must be 1 or more"),
        (["--neighbours", "0"], "--neighbours must be 1 or more"),
        (["--rates", "-1"], "--rates must be more than 0"),
        (["--root", "/nowhere/at/all"], "no such folder"),
    ],
)
def test_wrong_use_is_told(
    words: list[str], told: str, place: tuple[Path, Path, Path],
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    assert probe(*place, *words) == 2
    assert told in capsys.readouterr().err


def test_an_attentive_probe_wants_tokens(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in "ab":
        store(tmp_path / "f", f"{name}.mp4", np.ones((2, WIDTH), np.float32))
    listed = write_list(tmp_path / "l.csv", [("a.mp4", 0), ("b.mp4", 1)])
    assert probe(tmp_path / "f", listed, listed, "--probe", "attentive", "--heads", 2) == 2
    assert "--pooling tokens" in capsys.readouterr().err


def test_a_damaged_array_is_named(
    place: tuple[Path, Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    array = place[0] / "3.npy"
    array.write_bytes(array.read_bytes()[:100])
    assert probe(*place) == 1
    assert f"{array}: can't be read" in capsys.readouterr().err


def test_an_empty_folder_says_how_to_fill_it(
    place: tuple[Path, Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "none").mkdir()
    assert probe(tmp_path / "none", *place[1:]) == 2
    assert "make them with videomae-fast features" in capsys.readouterr().err
