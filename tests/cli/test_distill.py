"""``videomae-fast distill``: options from fields, the teacher, and what it says to mistakes."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest

from videomae_fast.cli import distill, main
from videomae_fast.cli.test import _run_of
from videomae_fast.errors import UsageError
from videomae_fast.recipes import DistillConfig, to_plain
from videomae_fast.recipes.catalogue import names
from videomae_fast.recipes.load import load
from videomae_fast.recipes.plain import changed


@pytest.fixture
def tiny_list(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.csv"
    path.write_text("0.mp4 0\n", encoding="utf-8")
    return path


def config(*words: str) -> DistillConfig:
    parser = argparse.ArgumentParser()
    distill.add_arguments(parser)
    return distill.config_from(parser.parse_args(words))


def test_a_recipe_with_a_teacher_is_the_recipe(tiny_list: Path) -> None:
    for name in names("distill"):
        found = config("--recipe", name, "--data", str(tiny_list), "--teacher", "g.pth")
        own = {"data.lists": (), "distillation.teacher": None}
        assert changed(found, own) == load(DistillConfig, name)
        assert found.data.lists[0].format == "labels"


def test_options(tiny_list: Path) -> None:
    found = config(
        "--data", str(tiny_list), "--teacher", "g.pth", "--temperature", "2",
        "--label-share", "0.1", "--mixup", "0", "--cutmix", "0", "--teacher-outputs", "o",
        "--teacher-views", "3", "--set", "distillation.trained_frames=8",
    ).distillation  # fmt: skip
    assert (found.teacher, found.temperature, found.label_share) == ("g.pth", 2.0, 0.1)
    assert (found.outputs, found.views, found.trained_frames) == ("o", 3, 8)
    words = ("--distill-mode", "features", "--aligned-layers", "2")
    found = config("--data", str(tiny_list), "--teacher", "g.pth", *words).distillation
    assert (found.mode, found.layers) == ("features", 2)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--data", "{}"], "--teacher is missing: name the teacher's weights"),
        (["--teacher", "g.pth"], "--data is missing: name at least one list"),
        (["--data", "{}", "--teacher", "g.pth", "--teacher-outputs", "o"], "--mixup 0 --cutmix 0"),
        (["--data", "{}", "--teacher", "g", "--recipe", "vit_s_k710"], "mean vit_s_k710_from_g"),
    ],
)
def test_mistakes(words: list[str], message: str, tiny_list: Path) -> None:
    with pytest.raises(UsageError) as caught:
        config(*(word.format(tiny_list) for word in words))
    assert message in str(caught.value)


def test_a_missing_teacher_is_wrong_use(
    tiny_list: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--data", str(tiny_list), "--teacher", "no.pth", "--output", str(tmp_path / "run")]
    words += ["--videos-per-step", "1", "--mixup", "0", "--cutmix", "0", "--classes", "none"]
    assert main(["distill", *words, "--device", "cpu"]) == 2
    assert "--teacher no.pth: no such weights" in capsys.readouterr().err
    assert main(["distill", *words[:4]]) == 2
    assert "--output is missing" in capsys.readouterr().err


def test_a_test_finds_the_views_of_the_run(tmp_path: Path) -> None:
    made = changed(DistillConfig(), {"data.stride": 7, "distillation.teacher": "g.pth"})
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "config.json").write_text(json.dumps(to_plain(made)))
    assert _run_of(tmp_path / "best.safetensors") == made
