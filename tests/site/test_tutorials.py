"""The tutorials run from top to bottom, and what they show is what a run prints and leaves."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.site.tutorials import (
    FOLDER,
    IMAGES,
    TutorialError,
    blocks,
    differs,
    rewritten,
    run,
    tutorials,
)

TUTORIALS = {path.stem: path for path in tutorials()}


def test_there_are_five_and_the_list_has_them() -> None:
    assert len(TUTORIALS) == 5
    told = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert [name for name in TUTORIALS if f"]({name}.md)" not in told] == []


@pytest.mark.parametrize("name", TUTORIALS)
def test_a_tutorial_does_what_it_shows(name: str, tmp_path: Path) -> None:
    if name in ("accelerate", "convert"):
        pytest.importorskip("transformers")
    text = TUTORIALS[name].read_text(encoding="utf-8")
    shown = run(text, tmp_path)
    assert len(shown) >= 4
    assert [(line, out) for block, out in shown if (line := differs(block.code, out))] == []
    for image in IMAGES.findall(text):
        made, there = (
            np.asarray(Image.open(path).convert("RGB"), dtype=np.float32)
            for path in (tmp_path / image, FOLDER / "images" / image)
        )
        assert made.shape == there.shape, image
        assert np.abs(made - there).mean() < 8, f"{image} is of another run"


@pytest.mark.parametrize(
    ("shown", "printed", "line"),
    [
        ("a 1.00\n", "a 1.04\n", None),
        ("a 1.00\n", "a 1.40\n", "a 1.00"),
        ("a 1,000\n", "a 1,001\n", "a 1,000"),
        ("a\nb\n", "a\n", "b"),
        ("a\n", "a\nb\n", "b (printed, not shown)"),
        ("…\nb\n", "a\na\nb\n", None),
        ("…\nb\n", "a\n", "b"),
        ("a\n…\n", "a\nb\nc\n", None),
        ("a\n…\nc\n", "a\nb\nc\nd\n", "d (printed, not shown)"),
        ("a 2e-07\n", "a 5e-07\n", None),
        ("size 48x48\n", "size 64x48\n", "size 48x48"),
    ],
)
def test_what_is_shown_is_compared(shown: str, printed: str, line: str | None) -> None:
    assert differs(shown, printed) == line


def test_a_run_is_written_into_the_text(tmp_path: Path) -> None:
    text = (
        'A\n\n```python\nprint("x 1.5")\nprint("y")\nprint("z 7")\n```\n\n'
        '```text title="output"\n…\nz 3\n```\n\n'
        '```python\nprint(2)\n```\n\n```text title="output"\n?\n```\n'
    )
    expected = text.replace("z 3", "z 7").replace("?", "2")
    assert rewritten(text, run(text, tmp_path)) == expected
    assert [block.title for block in blocks(text)] == [None, "output", None, "output"]


def test_what_fails_or_is_not_run_is_an_error(tmp_path: Path) -> None:
    for code, said in {
        "```shell\nvideomae-fast list nowhere\n```\n": "no such folder",
        "```shell\nrm -r /nowhere\n```\n": "nothing runs rm -r /nowhere",
        "```toml\na = 1\n```\n": "nothing runs toml",
    }.items():
        with pytest.raises(TutorialError, match=said):
            run(code, tmp_path)
