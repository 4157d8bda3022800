"""The generated pages are up to date and say what ``--help`` says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from videomae_fast import cli
from videomae_fast.recipes.fields import settings
from videomae_fast.recipes.kinds import KINDS
from videomae_fast.recipes.load import load
from videomae_fast.recipes.plain import LIST_FIELDS
from videomae_fast.recipes.reference import page

FOLDER = Path(__file__).parents[2] / "docs" / "reference"
PAGES = {
    "pretrain": "configuration.md",
    "finetune": "finetuning.md",
    "distill": "distillation.md",
    "detect": "detection.md",
}


@pytest.mark.parametrize("task", KINDS)
def test_the_page_is_up_to_date(task: str) -> None:
    text = (FOLDER / PAGES[task]).read_text(encoding="utf-8")
    assert text == page(KINDS[task]), "run: make reference"


@pytest.mark.parametrize("task", KINDS)
def test_help_and_page_say_the_same(task: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main([*KINDS[task].command_line().split(), "--help"])
    shown = re.sub(r"\s+", "", capsys.readouterr().out)
    text = re.sub(r"\s+", "", page(KINDS[task]))
    for one in settings(KINDS[task]).values():
        if one.name not in LIST_FIELDS:
            assert re.sub(r"\s+", "", one.meaning) in shown, one.name
        assert LIST_FIELDS.get(one.name, one.flag) in shown
        assert re.sub(r"\s+", "", one.meaning) in text, one.name


@pytest.mark.parametrize("task", KINDS)
def test_the_recipe_on_the_page_is_one(task: str, tmp_path: Path) -> None:
    (example,) = re.findall(r"^```toml\n(.*?)^```", page(KINDS[task]), re.MULTILINE | re.DOTALL)
    mine = tmp_path / "mine.toml"
    mine.write_text(example)
    config = load(KINDS[task], mine)
    assert config.model.image_size == ((128, 160) if task == "pretrain" else 160)
    assert config.data.lists[0].weight == 2.0
