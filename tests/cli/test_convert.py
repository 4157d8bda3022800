"""``convert`` from files to files, and its refusals."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.support.random_weights import classifier, pretraining, same
from videomae_fast.cli import main
from videomae_fast.data.labels.kinetics import kinetics_rows
from videomae_fast.interop import read_weights

SHAPE = ("--heads", 2, "--frames", 4, "--image-size", 32)


def convert(*words: object) -> int:
    return main(["convert", *map(str, words)])


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    torch.save({"module": pretraining()}, tmp_path / "a.pth")
    return tmp_path / "a.pth"


def test_the_kind_the_table_and_the_destination_are_told(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = (checkpoint, tmp_path / "hf", "--to", "hugging-face", *SHAPE, "--decoder-heads", 1)
    assert convert(*words) == 0
    shown = capsys.readouterr().out
    assert f"source   {checkpoint}: official, pre-training" in shown
    assert "decoder blocks" in shown
    assert "differs   decoder.norm's epsilon is 1e-06 here" in shown
    assert f"written  {tmp_path}/hf: hugging-face, pre-training" in shown
    assert json.loads((tmp_path / "hf" / "config.json").read_text())["num_frames"] == 4
    assert convert(tmp_path / "hf", tmp_path / "b.pth", "--to", "official", "--official-eps") == 0
    assert same(torch.load(tmp_path / "b.pth", weights_only=True)["model"], pretraining())
    assert convert(tmp_path / "hf", tmp_path / "c.pth", "--to", "official") == 1
    assert "Take it with --official-eps" in capsys.readouterr().err


def test_a_new_head_and_rows_of_one(checkpoint: Path, tmp_path: Path) -> None:
    head = ("--classifier", "--classes", 7, "--decoder-heads", 1)
    assert convert(checkpoint, tmp_path / "c.safetensors", "--to", "ours", *SHAPE, *head) == 0
    assert load_file(tmp_path / "c.safetensors")["head.weight"].shape == (7, 32)
    torch.save({"module": classifier(7)}, tmp_path / "k.pth")
    (tmp_path / "index.json").write_text("[6, 1]")
    words = ("--to", "official", "--head-index", tmp_path / "index.json", *SHAPE)
    assert convert(tmp_path / "k.pth", tmp_path / "k2.pth", *words) == 0
    made = torch.load(tmp_path / "k2.pth", weights_only=True)["model"]
    assert torch.equal(made["head.weight"], classifier(7)["head.weight"][[6, 1]])


def test_rows_of_a_head_by_the_names_of_its_classes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save({"module": classifier(3)}, tmp_path / "k.pth")
    (tmp_path / "names.txt").write_text("one\ntwo\nthree\n")
    (tmp_path / "some.txt").write_text("three\none\n")
    words = ("--to", "ours", *SHAPE, "--labels", tmp_path / "names.txt")
    assert convert(tmp_path / "k.pth", tmp_path / "named.safetensors", *words) == 0
    words = ("--to", "ours", "--head-classes", tmp_path / "some.txt")
    assert convert(tmp_path / "named.safetensors", tmp_path / "two.safetensors", *words) == 0
    made = read_weights(tmp_path / "two.safetensors")
    assert made.labels == ("three", "one")
    assert torch.equal(made.state["head.weight"], classifier(3)["head.weight"][[2, 0]])
    assert convert(tmp_path / "k.pth", tmp_path / "no.safetensors", *words, *SHAPE) == 1
    assert "does not name the 3 classes of its head" in capsys.readouterr().err
    (tmp_path / "some.txt").write_text("four\n")
    assert convert(tmp_path / "named.safetensors", tmp_path / "no.safetensors", *words) == 1
    assert "1 of 1 classes are not among the 3 of its head, as 'four'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        ("a.pth b.pth --to ours --head-classes n --head-index i", 2, "by name: leave the other"),
        ("gone.pth b.pth --to official", 2, "gone.pth: no such file or folder"),
        ("a.pth b.pth --to official --classes 3", 2, "go together"),
        ("a.pth b.pth --to official --classifier", 2, "go together"),
        ("a.pth b.pth --to official --classifier --classes 0", 2, "1 or more"),
        ("a.pth b.pth --to ours --classifier --classes 3 --head-index i", 2, "give one of them"),
        ("a.pth b.pth --to ours --bias-names q_bias", 2, "leave it out"),
        ("a.pth b.pth --to ours --licence mit", 2, "model card of --to hugging-face"),
        ("a.pth b.pth --to ours --image-size 1 2 3", 2, "one side, or"),
        ("a.pth b.pth --to official", 1, "give --heads"),
        ("a.pth a.pth --to official --heads 2 --decoder-heads 1", 1, "nothing is overwritten"),
        (
            "a.pth b.pth --to official --heads 2 --decoder-heads 1 --head-index i",
            1,
            "no classifier",
        ),
        ("empty b.pth --to official", 1, "no whole checkpoint there"),
        (
            "a.pth b.pth --to official --head-index kinetics-500",
            2,
            "there is no Kinetics-500: 400, 600, 700, 710",
        ),
        ("a.pth b.pth --to official --labels names", 2, "--to official can't say; leave it out"),
        (
            "a.pth b.pth --to official --heads 2 --decoder-heads 1 --detector",
            1,
            "holds no detector; leave --detector out",
        ),
    ],
)
def test_refusals(
    words: str,
    code: int,
    told: str,
    checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    assert convert(*words.split()) == code
    shown = capsys.readouterr().err
    assert told in shown
    assert shown.count("\n") == 1
    assert not (tmp_path / "b.pth").exists()


def test_kinetics_710_becomes_kinetics_400_by_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state = classifier(710)
    torch.save({"module": state}, tmp_path / "k710.pth")
    kinetics = ("--head-index", "kinetics-400", "--labels", "kinetics-400")
    to = ("--to", "hugging-face", *kinetics)
    assert convert(tmp_path / "k710.pth", tmp_path / "hf", *to, *SHAPE) == 0
    found = read_weights(tmp_path / "hf")
    assert (found.labels or ())[:2] == ("abseiling", "air drumming")
    assert torch.equal(found.state["head.bias"], state["head.bias"][kinetics_rows(400)])
    assert "400 of the 710 classes" in capsys.readouterr().out
    assert convert(tmp_path / "hf", tmp_path / "again", *to) == 1
    assert "has 400 rows, and the rows asked for are of a head of 710" in capsys.readouterr().err
