"""``videomae-fast recipes``: the table, and files to copy."""

from __future__ import annotations

from pathlib import Path

import pytest

from videomae_fast.cli import main
from videomae_fast.recipes.catalogue import names
from videomae_fast.recipes.load import load
from videomae_fast.recipes.schema import PretrainConfig


def test_the_table_has_a_row_per_recipe(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recipes"]) == 0
    head, *rows = capsys.readouterr().out.splitlines()
    assert head.split("  ")[0] == "name"
    tasks = ("pretrain", "finetune", "distill", "detect", "progressive")
    assert [row.split()[0] for row in rows] == [name for task in tasks for name in names(task)]
    assert all(row.split()[1] in tasks for row in rows)
    (giant,) = (row for row in rows if row.startswith("vit_g_hybrid"))
    for told in ("giant", "UnlabeledHybrid", "241 h on 64 A100", "K400 87.2"):
        assert told in giant


def test_a_shown_recipe_is_a_recipe(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["recipes", "show", "vit_g_hybrid"]) == 0
    mine = tmp_path / "mine.toml"
    mine.write_text(capsys.readouterr().out)
    assert load(PretrainConfig, mine) == load(PretrainConfig, "vit_g_hybrid")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["show"], "recipes show NAME"),
        (["list", "vit_b_k400"], "recipes show NAME"),
        (["show", "vit_b_k40"], "no recipe 'vit_b_k40'; did you mean vit_b_k400?; there are"),
    ],
)
def test_mistakes(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recipes", *words]) == 2
    assert message in capsys.readouterr().err
