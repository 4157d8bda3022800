"""``videomae-fast finetune``: options from fields, lists, and what it says to mistakes."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from videomae_fast.cli import finetune, main
from videomae_fast.errors import UsageError
from videomae_fast.recipes.catalogue import names
from videomae_fast.recipes.classification import FinetuneConfig
from videomae_fast.recipes.load import load
from videomae_fast.recipes.plain import changed


@pytest.fixture
def tiny_list(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.csv"
    path.write_text("0.mp4 0\n", encoding="utf-8")
    return path


def config(*words: str) -> FinetuneConfig:
    parser = argparse.ArgumentParser()
    finetune.add_arguments(parser)
    return finetune.config_from(parser.parse_args(words))


def test_a_recipe_alone_is_the_recipe(tiny_list: Path) -> None:
    for name in names("finetune"):
        found = config("--recipe", name, "--data", str(tiny_list))
        assert changed(found, {"data.lists": ()}) == load(FinetuneConfig, name)


def test_lists_have_labels_and_options(tiny_list: Path) -> None:
    found = config(
        "--data", str(tiny_list), "--validation", f"{tiny_list},format=folder-labels",
        "--mixup", "0", "--set", "optim.layer_decay=0.5", "--patience", "3",
    )  # fmt: skip
    assert [one.format for one in found.data.lists] == ["labels"]
    assert [one.format for one in found.data.validation] == ["folder-labels"]
    assert (found.mix.mixup, found.optim.layer_decay, found.schedule.patience) == (0.0, 0.5, 3)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "--data is missing: name at least one list, a text file with a line 'path label'"),
        (["--data", "{}", "--validation", "no.csv"], "--validation no.csv: no such list file"),
        (["--data", "{}", "--set", "data.validation=a"], "is given with --validation LIST"),
        (["--data", "{}", "--patience", "2"], "data.validation names no list"),
        (["--data", "{}", "--recipe", "vit_b_k400"], "did you mean vit_b_k400_ft"),
    ],
)
def test_mistakes(words: list[str], message: str, tiny_list: Path) -> None:
    with pytest.raises(UsageError) as caught:
        config(*(word.format(tiny_list) for word in words))
    assert message in str(caught.value)


def test_an_output_is_wanted(tiny_list: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["finetune", "--data", str(tiny_list)]) == 2
    assert "--output is missing" in capsys.readouterr().err
