"""A small labelled set, and one run that learns it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

Lists = tuple[Path, Path]


@pytest.fixture(scope="session")
def lists(tmp_path_factory: pytest.TempPathFactory) -> Lists:
    from tests.support.labelled import write_set

    return write_set(tmp_path_factory.mktemp("squares"), 8, 6)


@pytest.fixture(scope="session")
def learned(lists: Lists, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """The folder of a run that learned the set, and what it said."""
    from tests.support.labelled import tiny_config
    from videomae_fast.tasks.classification import finetune

    names = tmp_path_factory.mktemp("names") / "classes.txt"
    names.write_text("down\nleft\nright\nup\n")
    output, said = tmp_path_factory.mktemp("learned") / "run", list[str]()
    config = tiny_config(
        *lists, schedule__epochs=14, schedule__warmup_epochs=2, mix__mixup=0.0, mix__cutmix=0.0,
        data__classes=str(names), optim__ema_decay=0.7,
    )  # fmt: skip
    finetune(config, output=output, log=said.append)
    return output, said


@pytest.fixture
def said() -> tuple[list[str], Callable[[str], None]]:
    lines: list[str] = []
    return lines, lines.append
