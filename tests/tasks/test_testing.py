"""Tests in several views: the same for any batch, order, processes and interruptions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.support.launches import COMMAND, Host
from videomae_fast.cli import main
from videomae_fast.errors import UsageError
from videomae_fast.evaluation import multi_view
from videomae_fast.interop import SourceHints, read_weights, write_weights
from videomae_fast.recipes import Source
from videomae_fast.tasks import testing
from videomae_fast.tasks.score_journal import ScoreJournal
from videomae_fast.tasks.testing import ViewSettings, score_lists

Learned = tuple[Path, list[str]]
VIEWS = ("--segments", "2", "--crops", "3", "--workers", "0", "--device", "cpu")


def _test(learned: Learned, val: Path, output: Path, *words: str) -> int:
    weights = str(learned[0])  # of the last step: the best are early ones, and less sure
    return main(["test", weights, str(val), "--output", str(output), *VIEWS, *words])


def _scores(output: Path) -> Any:
    lines = [json.loads(line) for line in (output / "scores.jsonl").read_text().splitlines()]
    return np.array([line["scores"] for line in lines])


def test_accuracies_tables_and_scores(
    learned: Learned, lists: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no video")
    val = tmp_path / "val.csv"
    val.write_text(f"{broken} 1\n" + lists[1].read_text())
    out = tmp_path / "out"
    assert _test(learned, val, out) == 0
    said = capsys.readouterr().out
    assert "2 segments x 3 crops of 4 frames (dense, stride 4), 32 pixels" in said
    assert f"left out: {broken}" in said
    assert "24 videos, 1 left out" in said
    result = json.loads((out / "result.json").read_text())
    assert (result["videos"], result["failed"], result["top5"]) == (24, 1, 1.0)
    assert result["top1"] >= 0.75
    rows = (out / "classes.csv").read_text().splitlines()
    assert rows[1].startswith('0,"down",6,')
    scores = _scores(out)
    assert scores.shape == (24, 4)
    np.testing.assert_allclose(scores.sum(1), 1, atol=1e-5)
    labels = [i % 4 for i in range(24)]
    assert (scores.argmax(1) == labels).mean() == result["top1"]
    assert Image.open(out / "confusion.png").size[1] > 600
    assert str(broken) in (out / "failures.jsonl").read_text()


def test_a_list_that_numbers_the_classes_otherwise(
    learned: Learned, lists: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    val, names = tmp_path / "val.csv", tmp_path / "names.txt"
    lines = [line.rsplit(" ", 1) for line in lists[1].read_text().splitlines()]
    val.write_text("".join(f"{path} {(int(label) + 1) % 4}\n" for path, label in lines))
    assert _test(learned, val, tmp_path / "out") == 0
    said = capsys.readouterr().out
    assert "is no better than guessing among 4 classes (25.0%). Likely causes: the list num" in said
    assert json.loads((tmp_path / "out/result.json").read_text())["warning"] in said
    names.write_text("left\ndown\nright\nup\n")
    assert _test(learned, val, tmp_path / "other", "--classes", str(names)) == 2
    assert "names 'left' what the weights name 'down'" in capsys.readouterr().err


def test_batch_and_interruption_change_nothing(
    learned: Learned, lists: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert _test(learned, lists[1], tmp_path / "whole", "--batch", "24") == 0
    add, count = ScoreJournal.add, [0]

    def stopping(journal: ScoreJournal, place: int, **values: Any) -> None:
        count[0] += 1
        if count[0] == 6:
            raise KeyboardInterrupt
        add(journal, place, **values)

    with monkeypatch.context() as patch:
        patch.setattr(ScoreJournal, "add", stopping)
        assert _test(learned, lists[1], tmp_path / "stopped", "--batch", "1") == 130
    journal = next((tmp_path / "stopped/scores").iterdir())
    with journal.open("a") as file:
        file.write('{"place": 9, "scor')  # a line that was cut off
    read: list[int] = []
    whole = multi_view.score_videos

    def counted(model: Any, dataset: Any, draws: Any, **more: Any) -> Any:
        read.append(len(draws))
        return whole(model, dataset, draws, **more)

    monkeypatch.setattr(testing, "score_videos", counted)
    assert _test(learned, lists[1], tmp_path / "stopped", "--batch", "7") == 0
    assert read == [24 - 5]
    np.testing.assert_allclose(
        _scores(tmp_path / "stopped"), _scores(tmp_path / "whole"), atol=2e-6
    )
    results = [(tmp_path / run / "result.json").read_text() for run in ("whole", "stopped")]
    assert results[0] == results[1]


def test_another_test_in_the_folder_is_refused(
    learned: Learned, lists: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _test(learned, lists[1], tmp_path / "out") == 0
    assert _test(learned, lists[1], tmp_path / "out", "--crops", "1", "--stride", "2") == 2
    assert "holds a test with other crops, stride: name another" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["stride=1", "contains=up", "only=videos", "first=0"])
def test_what_an_option_of_the_list_decides_is_scored_anew(
    option: str,
    learned: Learned,
    lists: tuple[Path, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    output = ["--output", str(tmp_path), *VIEWS, "--segments", "1", "--crops", "1"]
    assert main(["test", str(learned[0]), f"{lists[1]},contains=down", *output]) == 0
    assert main(["test", str(learned[0]), f"{lists[1]},{option}", *output]) == 2
    assert "holds a test with other lists: name another" in capsys.readouterr().err


def test_other_positions_are_another_test(
    learned: Learned, lists: tuple[Path, Path], tmp_path: Path
) -> None:
    official = tmp_path / "official.pth"  # which does not say what its positions are for
    write_weights(read_weights(learned[0] / "best.safetensors"), official, "official")
    sources = [Source(lists[1], format="labels", contains="down")]
    views = ViewSettings(1, 1, "dense", 4, 4, 32, device="cpu", workers=0)

    def score(trained: int) -> None:
        weights = read_weights(official, SourceHints(heads=2, frames=4, image_size=trained))
        score_lists(official, weights, sources, views, classes=None, output=tmp_path / "out")

    score(32)
    score(32)
    with pytest.raises(UsageError, match="holds a test with other positions: name another"):
        score(64)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--segments", "0"], "--segments must be 1 or more, not 0"),
        (["--sampling", "sparse", "--stride", "2"], "stride 2 would do nothing, as sparse clips"),
        (["--classes", "kinetics-400"], "names 400 classes, and the weights have 4"),
    ],
)
def test_mistakes(
    words: list[str],
    message: str,
    learned: Learned,
    lists: tuple[Path, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert _test(learned, lists[1], tmp_path / "out", *words) == 2
    assert message in capsys.readouterr().err


def test_heads_of_weights_that_do_not_say_them(
    learned: Learned, lists: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    official, out = tmp_path / "official.pth", tmp_path / "out"
    assert main(["convert", str(learned[0]), str(official), "--to", "official"]) == 0

    def tested(*words: str) -> int:
        trained = ("--trained-frames", "4", "--trained-image-size", "32")
        return _test((official, []), lists[1], out, *trained, *words)

    assert tested() == 1
    assert "48 is no official width" in capsys.readouterr().err
    assert tested("--heads", "0") == 2
    assert "--heads must be 1 or more, not 0" in capsys.readouterr().err
    assert tested("--heads", "2") == 0
    assert _test(learned, lists[1], tmp_path / "ours") == 0
    np.testing.assert_array_equal(_scores(out), _scores(tmp_path / "ours"))
    capsys.readouterr()
    assert tested("--heads", "4") == 2
    assert "holds a test with other heads: name" in capsys.readouterr().err


def test_two_processes_give_what_one_gives(
    learned: Learned, lists: tuple[Path, Path], host: Host, tmp_path: Path
) -> None:
    assert _test(learned, lists[1], tmp_path / "one") == 0
    words = ["test", str(learned[0]), str(lists[1]), "--output", str(tmp_path / "two"), *VIEWS]
    host.start(2, COMMAND, words, tmp_path / "log").finish()
    np.testing.assert_allclose(_scores(tmp_path / "two"), _scores(tmp_path / "one"), atol=2e-6)
    results = [(tmp_path / run / "result.json").read_text() for run in ("one", "two")]
    assert results[0] == results[1]
