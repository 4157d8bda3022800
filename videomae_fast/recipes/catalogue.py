"""The recipes that come with the package: TOML files whose comments say what they cost and give."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from videomae_fast.errors import UsageError, did_you_mean

FACTS: Final = ("data", "command", "cost", "expected", "source")
"""What the comments at the head of a recipe state, each as ``# Name: text``."""


@dataclass(frozen=True)
class Recipe:
    """A recipe of the package.

    Attributes:
        name: what ``--recipe`` takes.
        file: the TOML file.
        title: its first comment, one sentence.
        facts: the text of each of :data:`FACTS`.
    """

    name: str
    file: Path
    title: str
    facts: dict[str, str]


def names(task: str) -> list[str]:
    """The recipes of a task, sorted."""
    return sorted(file.stem for file in _folder(task).glob("*.toml"))


def recipe(task: str, name: str) -> Recipe:
    """A recipe of the package with what its comments say.

    Raises:
        UsageError: there is none of this name; says what was meant.
    """
    if name not in names(task):
        there = ", ".join(names(task))
        raise UsageError(f"no recipe {name!r}{did_you_mean(name, names(task))}; there are {there}")
    file = _folder(task) / f"{name}.toml"
    title, facts = _head(file.read_text(encoding="utf-8"))
    return Recipe(name, file, title, facts)


def find(task: str, name: str | Path) -> Path:
    """The file of a recipe: one of the package by name, or the user's own by path.

    Raises:
        UsageError: there is none.
    """
    path = Path(name)
    if path.suffix == ".toml" or len(path.parts) > 1:
        if not path.is_file():
            raise UsageError(
                f"no recipe file {path}: videomae-fast recipes show NAME > {path.name} makes one "
                "of a recipe of the package"
            )
        return path
    return recipe(task, str(name)).file


def _folder(task: str) -> Path:
    return Path(__file__).parent / task


def _head(text: str) -> tuple[str, dict[str, str]]:
    """Title and facts of the comments before the first line that is none."""
    paragraphs: list[str] = []
    for line in text.splitlines():
        if not line.startswith("#"):
            break
        said = line.removeprefix("#").strip()
        if not paragraphs or re.match(r"[A-Z][a-z]+: ", said) or not said:
            paragraphs.append(said)
        else:
            paragraphs[-1] = f"{paragraphs[-1]} {said}".strip()
    facts = {}
    for paragraph in paragraphs:
        name, colon, told = paragraph.partition(": ")
        if colon and name.lower() in FACTS:
            facts[name.lower()] = told.strip()
    return paragraphs[0] if paragraphs else "", facts
