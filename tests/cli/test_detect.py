"""``videomae-fast detect``: moving squares learned and scored, and what it says to mistakes."""

from __future__ import annotations

import argparse
import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.support.boxed import FPS, TINY, write_boxed
from tests.support.launches import COMMAND, Host
from videomae_fast.cli import detect, main
from videomae_fast.data.boxes.ava_files import read_boxes, read_label_map
from videomae_fast.errors import UsageError
from videomae_fast.evaluation.detection_precision import mean_average_precision
from videomae_fast.recipes.catalogue import names
from videomae_fast.recipes.detection import DetectConfig
from videomae_fast.recipes.load import load
from videomae_fast.recipes.plain import changed
from videomae_fast.tasks.score_journal import ScoreJournal


def config(*words: str) -> DetectConfig:
    parser = argparse.ArgumentParser()
    detect.add_arguments(parser)
    return detect.config_from(parser.parse_args(["train", *words]))


def listed(folder: Path, name: str, **others: Any) -> str:
    given = {"root": folder / "frames", "fps": FPS, "pattern": "img_{:05}.png", **others}
    return ",".join([str(folder / name), *(f"{key}={value}" for key, value in given.items())])


def train_words(folder: Path, output: Path, **others: Any) -> list[str]:
    words = ["detect", "train", "--output", str(output), "--data", listed(folder, "train.csv")]
    words += ["--validation", listed(folder, "val.csv")]
    words += ["--label-map", str(folder / "actions.pbtxt"), "--classes", "none"]
    for key, value in {**TINY, **others}.items():
        words += ["--set", f"{key}={value}"]
    return words


def scoring(folder: Path, weights: Path, output: Path, *more: str) -> list[str]:
    return [
        "detect", "test", str(weights), listed(folder, "val.csv"), "--output", str(output),
        "--workers", "0", "--device", "cpu", *more,
    ]  # fmt: skip


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A small set, and a run over it of two epochs."""
    folder = tmp_path_factory.mktemp("boxed")
    write_boxed(folder, 16, 6)
    assert main(train_words(folder, folder / "run")) == 0
    return folder, folder / "run"


def test_a_recipe_alone_is_the_recipe(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("a,1,0,0,1,1,1\n")
    (tmp_path / "p.csv").write_text("a,1,0,0,1,1,,1\n")
    for name in names("detect"):
        given = f"{tmp_path}/a.csv"
        if load(DetectConfig, name).data.add_proposals is not None:
            given += f",proposals={tmp_path}/p.csv"
        found = config("--recipe", name, "--data", given)
        assert changed(found, {"data.lists": ()}) == load(DetectConfig, name)


def test_options_of_a_list(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("a,1,0,0,1,1,1\n")
    (tmp_path / "p.pkl").touch()
    given = f"{tmp_path}/a.csv,root={tmp_path},per_second=true,proposals={tmp_path}/p.pkl"
    (source,) = config("--data", f"{tmp_path}/a.csv", "--validation", given).data.validation
    assert (source.per_second, source.proposals) == (True, tmp_path / "p.pkl")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "a text file with a line 'video,timestamp,x1,y1,x2,y2,class' per action of a person"),
        (["--data", "{},stride=2"], "unknown option 'stride=2'"),
        (["--data", "{},proposals=no.csv"], "proposals no.csv is no file"),
        (["--data", "{},trimmed=maybe"], "trimmed must be true or false"),
        (["--data", "{}", "--recipe", "vit_b_k400"], "did you mean"),
        (["--data", "{}", "--image-size", "300"], "data.short_side (256)"),
    ],
)
def test_mistakes(words: list[str], message: str, tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("a,1,0,0,1,1,1\n")
    with pytest.raises(UsageError) as caught:
        config(*(word.format(path) for word in words))
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--frames", "0"], "--frames must be 1 or more"),
        (["--person-score", "2"], "--person-score must be 0 to 1"),
        (["--label-map", "no"], "--label-map no: no such file"),
        (["--personscore", "1"], "did you mean --person-score?"),
    ],
)
def test_mistakes_of_testing(
    more: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "frames").mkdir()
    (tmp_path / "val.csv").write_text("a,1,0,0,1,1,1\n")
    try:
        code = main(scoring(tmp_path, tmp_path, tmp_path / "out", *more))
    except SystemExit as error:
        code = int(error.code or 0)
    assert code == 2
    assert message in capsys.readouterr().err


def test_a_classifier_is_no_detector(
    tiny: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import torch

    from tests.support.random_weights import classifier
    from videomae_fast.interop import ModelWeights, SourceHints, read_weights, write_weights

    torch.save({"model": classifier(7)}, tmp_path / "a.pth")
    weights = read_weights(tmp_path / "a.pth", SourceHints(heads=2, frames=4, image_size=32))
    assert isinstance(weights, ModelWeights)
    write_weights(weights, tmp_path / "b.safetensors", "ours")
    assert main(scoring(tiny[0], tmp_path / "b.safetensors", tmp_path / "out")) == 2
    assert "holds classifier weights and no detector: train one" in capsys.readouterr().err


def test_a_test_gives_what_validation_did(
    tiny: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, output = tiny
    lines = (output / "validation.jsonl").read_text().splitlines()
    best = [one for one in map(json.loads, lines) if one["best"]][-1]
    weights = output / "best.safetensors"
    assert main(scoring(folder, weights, tmp_path, "--batch", "4", "--pictures", "2")) == 0
    said = json.loads((tmp_path / "result.json").read_text())
    assert said["map"] == pytest.approx(best["mean"], abs=1e-9)
    assert said["loss"] == pytest.approx(best["loss"], rel=1e-5)
    assert (said["key_frames"], said["boxes"], said["failed"]) == (6, 12, 0)
    assert f"mAP {said['map']:.2%} over " in capsys.readouterr().out
    # The files give the same score as the run does
    found = mean_average_precision(
        read_boxes(folder / "val.csv", "annotations"),
        read_boxes(tmp_path / "detections.csv", "detections"),
        read_label_map(folder / "actions.pbtxt"),
    )
    assert found.mean == pytest.approx(said["map"], abs=1e-12)
    rows = list(csv.DictReader((tmp_path / "classes.csv").open()))
    assert [row["name"] for row in rows] == ["left", "right", "up", "down", "big"]
    assert (tmp_path / "failures.jsonl").read_text() == ""
    pictures = tmp_path / "detections"
    assert sorted(one.name for one in pictures.iterdir()) == ["0.gif", "0.png", "1.gif", "1.png"]
    with Image.open(pictures / "0.gif") as animation:
        assert (animation.n_frames, min(animation.size)) == (4, 320)  # type: ignore[attr-defined]
    pixels = np.asarray(Image.open(pictures / "0.png"))
    assert (pixels == (14, 116, 220)).all(-1).any()
    assert (pixels == (22, 163, 74)).all(-1).any()


def test_a_stopped_test_goes_on(
    tiny: tuple[Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder, output = tiny
    broken = folder / "frames/val3/img_00008.png"
    sound = broken.read_bytes()
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    words = (folder, output / "best.safetensors")
    assert main(scoring(*words, whole, "--pictures", "0")) == 0
    add, read = ScoreJournal.add, list[int]()

    def stopping(journal: ScoreJournal, place: int, **values: Any) -> None:
        if len(read) == 3:
            raise KeyboardInterrupt
        read.append(place)
        add(journal, place, **values)

    monkeypatch.setattr(ScoreJournal, "add", stopping)
    more = ("--pictures", "1", "--batch", "1")
    assert main(scoring(*words, stopped, *more)) == 130
    assert not (stopped / "result.json").exists()
    read.clear()
    broken.write_bytes(b"")
    monkeypatch.setattr(ScoreJournal, "add", lambda journal, place, **values: (
        read.append(place), add(journal, place, **values)
    ))  # fmt: skip
    assert main(scoring(*words, stopped, *more)) == 0
    assert read == [4, 5]
    assert json.loads((stopped / "result.json").read_text())["failed"] == 1
    assert "3 of 6 key frames were scored before" in capsys.readouterr().out
    broken.write_bytes(sound)  # what could not be read is tried again
    assert main(scoring(*words, stopped, *more)) == 0
    assert read == [4, 5, 3]
    assert main(scoring(*words, stopped, *more)) == 0  # nothing is left
    assert read == [4, 5, 3]
    for name in ("detections.csv", "classes.csv", "result.json", "failures.jsonl"):
        assert (stopped / name).read_text() == (whole / name).read_text(), name
    assert (stopped / "detections/0.png").exists()


def test_a_folder_of_another_test_is_refused(
    tiny: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, output = tiny
    persons = tmp_path / "persons.csv"
    persons.write_text("val0,1,0.1,0.1,0.9,0.9,,0.9\n")
    words = scoring(folder, output / "best.safetensors", tmp_path / "out", "--pictures", "0")
    words[3] = listed(folder, "val.csv", proposals=persons)
    assert main(words) == 0
    fewer = tmp_path / "actions.pbtxt"
    fewer.write_text('item { name: "up" id: 3 }')
    weights = next((output / "checkpoints").glob("*/model.safetensors"))
    for others, told in (
        ([*words, "--stride", "2", "--widened", "0", "0"], "stride, widened"),
        ([*words[:2], str(weights), *words[3:]], "weights"),
        ([*words[:3], listed(folder, "val.csv"), *words[4:]], "lists"),
        ([*words, "--label-map", str(fewer)], "label_map"),
    ):
        assert main(others) == 2
        said = capsys.readouterr().err
        assert f"holds a test with other {told}: name another folder" in said
    persons.write_text("val0,1,0.1,0.1,0.9,0.8,,0.9\n")
    assert main(words) == 2
    assert "holds a test with other lists: name" in capsys.readouterr().err


def test_heads_of_weights_that_do_not_say_them(
    tiny: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """More heads than there are would give other scores, and nothing would tell."""
    folder, output, official, out = tiny[0], *(tmp_path / n for n in ("run", "a.pth", "out"))
    # As official files say no number of bins
    assert main(train_words(folder, output, **{"model.bins": 7, "schedule.epochs": 1})) == 0
    ours = output / "best.safetensors"
    assert main(["convert", str(ours), str(official), "--to", "official"]) == 0
    given = ["--short-side", str(TINY["data.short_side"]), "--pictures", "0"]
    given += ["--label-map", str(folder / "actions.pbtxt")]

    def tested(*words: str) -> int:
        shape = ("--trained-frames", "4", "--trained-image-size", str(TINY["model.image_size"]))
        return main(scoring(folder, official, out, *given, *shape, *words))

    assert tested() == 1
    assert "is no official width" in capsys.readouterr().err
    assert tested("--heads", "0") == 2
    assert "--heads must be 1 or more, not 0" in capsys.readouterr().err
    assert tested("--heads", str(TINY["model.heads"])) == 0
    assert main(scoring(folder, ours, tmp_path / "ours", *given)) == 0
    told, expected = (folder / "detections.csv" for folder in (out, tmp_path / "ours"))
    assert told.read_text() == expected.read_text()
    capsys.readouterr()
    assert tested("--heads", "4") == 2
    assert "holds a test with other heads: name another folder" in capsys.readouterr().err


def test_a_report_shows_what_validation_found(tiny: tuple[Path, Path], tmp_path: Path) -> None:
    page = tmp_path / "run.html"
    assert main(["report", str(tiny[1]), "--output", str(page)]) == 0
    text = page.read_text()
    assert "best mAP in validation" in text
    assert 'class="warn"' not in text


def test_batches_and_order_change_nothing(tiny: tuple[Path, Path], tmp_path: Path) -> None:
    folder, output = tiny
    lines = (folder / "val.csv").read_text().splitlines(keepends=True)
    other = tmp_path / "other"
    other.mkdir()
    (other / "val.csv").write_text("".join(sorted(lines, reverse=True)))
    (other / "frames").symlink_to(folder / "frames")
    found = []
    for where, batch in ((folder, "1"), (folder, "5"), (other, "3")):
        target = tmp_path / f"out{batch}"
        more = ("--batch", batch, "--pictures", "0")
        assert main(scoring(where, output / "best.safetensors", target, *more)) == 0
        found.append(sorted((target / "detections.csv").read_text().splitlines()))
    for each in found[1:]:
        for one, two in zip(found[0], each, strict=True):
            assert one.rpartition(",")[0] == two.rpartition(",")[0]
            assert float(one.rpartition(",")[2]) == pytest.approx(
                float(two.rpartition(",")[2]), abs=2e-5
            )


def test_detected_persons_are_where_actions_are_looked_for(
    tiny: tuple[Path, Path], tmp_path: Path
) -> None:
    folder, output = tiny
    annotated = read_boxes(folder / "val.csv", "annotations")
    (first, *others) = annotated
    persons = []
    for key in others:  # none in the first key frame: its boxes are missed
        for box in np.unique(annotated[key].boxes, axis=0):
            place = ",".join(map(str, box))
            persons += [f"{key[0]},1.0,{place},,0.9\n", f"{key[0]},1,{place},,0.5\n"]
    (tmp_path / "persons.csv").write_text("".join([*persons, "elsewhere,1,0,0,1,1,,0.9\n"]))
    words = scoring(folder, output / "best.safetensors", tmp_path / "out", "--pictures", "0")
    words[3] = listed(folder, "val.csv", proposals=tmp_path / "persons.csv")
    assert main(words) == 0
    found = read_boxes(tmp_path / "out/detections.csv", "detections")
    assert list(found) == others
    for key, boxes in found.items():
        np.testing.assert_allclose(
            np.unique(boxes.boxes, axis=0), np.unique(annotated[key].boxes, axis=0), atol=2e-5
        )
        assert boxes.scores.max() <= 0.9  # that of the person is a factor
    assert first not in found


def test_moving_squares_are_learned(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_boxed(tmp_path, 120, 24, videos=True)
    more = {"schedule.epochs": 6, "schedule.warmup_epochs": 2}
    assert main(train_words(tmp_path, tmp_path / "run", **more)) == 0
    weights = tmp_path / "run/best.safetensors"
    assert main(scoring(tmp_path, weights, tmp_path / "out")) == 0
    assert json.loads((tmp_path / "out/result.json").read_text())["map"] > 0.8
    rows = list(csv.DictReader((tmp_path / "out/classes.csv").open()))
    assert all(float(row["precision"]) > 0.6 for row in rows)


def test_two_processes_are_as_one(tiny: tuple[Path, Path], host: Host, tmp_path: Path) -> None:
    folder, _ = tiny
    runs: dict[str, Any] = {}
    for name in ("one", "two", "sharded"):
        output = tmp_path / name
        more: dict[str, Any] = {"schedule.epochs": 1, "schedule.warmup_epochs": 0}
        more |= {"optim.base_lr": 0.001}
        more |= {"model.drop_path": 0.2}
        if name == "sharded":
            more |= {"run.shard": "all"}
        words = train_words(folder, output, **more)
        if name == "one":
            assert main(words) == 0
        else:
            host.start(2, COMMAND, words, tmp_path / f"{name}.log").finish()
        runs[name] = (
            [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()],
            json.loads((output / "validation.jsonl").read_text()),
        )
    for other in ("two", "sharded"):
        for one, two in zip(runs["one"][0], runs[other][0], strict=True):
            assert two["loss"] == pytest.approx(one["loss"], rel=2e-5)
            assert two["grad_norm"] == pytest.approx(one["grad_norm"], rel=2e-4)
        assert runs[other][1]["loss"] == pytest.approx(runs["one"][1]["loss"], rel=1e-4)
        assert (runs[other][1]["boxes"], runs[other][1]["key_frames"]) == (12, 6)
        assert runs[other][1]["mean"] == pytest.approx(runs["one"][1]["mean"], abs=0.02)
    assert main(scoring(folder, tmp_path / "sharded/best.safetensors", tmp_path / "out")) == 0


def test_two_processes_score_as_one_does_and_one_goes_on_for_them(
    tiny: tuple[Path, Path], host: Host, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, output = tiny
    weights, alone, shared = output / "best.safetensors", tmp_path / "one", tmp_path / "two"
    assert main(scoring(folder, weights, alone, "--pictures", "0")) == 0
    words = scoring(folder, weights, shared, "--pictures", "0")
    host.start(2, COMMAND, words, tmp_path / "log").finish()
    _check_same(shared, alone)
    journals = sorted((shared / "scores").iterdir())
    assert [one.name for one in journals] == ["rank0.0.jsonl", "rank1.0.jsonl"]
    for journal in journals:  # stopped after two key frames each, in the midst of a line
        lines = journal.read_text().splitlines(keepends=True)
        journal.write_text("".join(lines[:2]) + lines[2][:9])
    capsys.readouterr()
    assert main(words) == 0
    assert "4 of 6 key frames were scored before" in capsys.readouterr().out
    _check_same(shared, alone)


def _check_same(one: Path, other: Path) -> None:
    """Two tests found the same, up to what a matmul of other rows rounds differently."""
    mine, theirs = (json.loads((test / "result.json").read_text()) for test in (one, other))
    assert mine == pytest.approx(theirs, rel=1e-6)
    found, wanted = (read_boxes(test / "detections.csv", "detections") for test in (one, other))
    assert list(found) == list(wanted)
    for key, boxes in found.items():
        np.testing.assert_array_equal(boxes.boxes, wanted[key].boxes)
        np.testing.assert_allclose(boxes.scores, wanted[key].scores, atol=2e-5)
