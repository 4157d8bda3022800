"""Recipes from files: what stands where, and what is said of mistakes."""

from __future__ import annotations

from pathlib import Path

import pytest

from videomae_fast.errors import UsageError
from videomae_fast.recipes.load import line_of, load
from videomae_fast.recipes.schema import PretrainConfig
from videomae_fast.recipes.source import Source


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    return tmp_path / "mine.toml"


def test_defaults_then_file_then_overrides(mine: Path) -> None:
    mine.write_text("""
schedule.epochs = 30
[model]
image_size = [64, 96]
depth = "none"
[[data.lists]]
path = "a.csv"
root = "videos"
[[data.lists]]
path = "b.csv"
""")
    config = load(PretrainConfig, mine, {"model.depth": 3, "schedule.warmup_epochs": 2})
    assert config.model.image_size == (64, 96)
    assert (config.model.depth, config.model.frames) == (3, 16)
    assert (config.schedule.epochs, config.schedule.warmup_epochs) == (30, 2)
    assert config.data.lists == (Source(Path("a.csv"), Path("videos")), Source(Path("b.csv")))
    assert load(PretrainConfig, mine).model.depth is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[optim\nx = 1", r"mine.toml: no TOML: .*line 1"),
        ("[optim]\nbase_lr = 1\nbase_lrr = 1", r"mine.toml, line 3: unknown field 'optim.base_lrr'"
         r"; did you mean optim.base_lr\?"),
        ("\n[optimm]\nbase_lr = 1", r"mine.toml, line 2: unknown section 'optimm'; did you mean"),
        ("base_lr = 1", r"mine.toml, line 1: unknown section 'base_lr'; did you mean optim.base"),
        ("model = 1", r"mine.toml, line 1: model is a section"),
        ("[optim]\nbetas = [0.9, 0.95]\nbase_lr = 'x'",
         r"mine.toml, line 3: optim.base_lr must be a number, not 'x'"),
        ("optim.base_lr = true", r"mine.toml, line 1: optim.base_lr must be a number, not True"),
        ("[optim]\nmin_lr = 1", r"mine.toml, line 2: optim.min_lr \(1\) is above"),
        ("[run]\nseed = 'none'", r"mine.toml, line 2: run.seed must be a whole number"),
        ("[[data.lists]]\nwieght = 2", r"mine.toml, line 1: unknown option of a data list: wiegh"),
        ("[[data.lists]]\npath = 'a'\nname_pattern='x'", r"mine.toml, line 1: .*no place"),
    ],
)  # fmt: skip
def test_mistakes_name_file_line_and_field(mine: Path, text: str, message: str) -> None:
    mine.write_text(text)
    with pytest.raises(UsageError, match=message):
        load(PretrainConfig, mine)


def test_a_mistake_of_the_overrides_is_not_the_files(mine: Path) -> None:
    mine.write_text("[optim]\nbase_lr = 1")
    with pytest.raises(UsageError, match=r"^optim.base_lr must be a number, not 'y'"):
        load(PretrainConfig, mine, {"optim.base_lr": "y"})
    with pytest.raises(UsageError, match=r"^unknown field 'optim.lr'"):
        load(PretrainConfig, mine, {"optim.lr": 1})


def test_files_that_cannot_be_read(mine: Path) -> None:
    with pytest.raises(UsageError, match=r"no recipe file .*mine.toml: videomae-fast recipes show"):
        load(PretrainConfig, mine)
    mine.write_bytes(b"\xff")
    with pytest.raises(UsageError, match="is not UTF-8"):
        load(PretrainConfig, mine)
    mine.unlink()
    mine.mkdir()
    with pytest.raises(UsageError, match="no recipe file"):
        load(PretrainConfig, mine)


def test_lines() -> None:
    text = "a.b = 1\n[t]\n# x = 1\nx = 2 # y = 3\n[[u.v]]\nx=1\n[[u.v]]\nx=2"
    found = {name: line_of(text, name) for name in ("a.b", "t", "t.x", "t.y", "u.v", "u.v.x")}
    assert found == {"a.b": 1, "t": 2, "t.x": 4, "t.y": None, "u.v": 5, "u.v.x": 6}
