"""The generated page is up to date and says what ``--help`` says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from videomae_fast import cli
from videomae_fast.recipes.fields import settings
from videomae_fast.recipes.load import load
from videomae_fast.recipes.reference import page
from videomae_fast.recipes.schema import PretrainConfig

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "configuration.md"


def test_the_page_is_up_to_date() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "run: make reference"


def test_help_and_page_say_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["pretrain", "--help"])
    shown = re.sub(r"\s+", "", capsys.readouterr().out)
    text = re.sub(r"\s+", "", page())
    for one in settings(PretrainConfig).values():
        if one.flat != "data":
            assert re.sub(r"\s+", "", one.meaning) in shown, one.name
            assert one.flag in shown
        assert re.sub(r"\s+", "", one.meaning) in text, one.name


def test_the_recipe_on_the_page_is_one(tmp_path: Path) -> None:
    (example,) = re.findall(r"^```toml\n(.*?)^```", page(), re.MULTILINE | re.DOTALL)
    mine = tmp_path / "mine.toml"
    mine.write_text(example)
    config = load(PretrainConfig, mine)
    assert (config.model.image_size, config.data.lists[0].weight) == ((128, 160), 2.0)
