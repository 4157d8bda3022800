"""Every command of benchmarks that a document or a docstring shows is one, with its options."""

from __future__ import annotations

import re
import shlex
from importlib import import_module
from pathlib import Path

import pytest

from benchmarks.__main__ import COMMANDS

ROOT = Path(__file__).parents[2]
DOCUMENTS = [
    ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "benchmarks" / "README.md",
    *sorted((ROOT / "docs").rglob("*.md")),
]  # fmt: skip
SOURCES = sorted((ROOT / "benchmarks").rglob("*.py"))


def shown(begin: str, paths: list[Path]) -> list[str]:
    """What begins so in a line, or in backquotes, of documents and docstrings; no comments."""
    pattern = re.compile(rf"(?:^[ ]*|`)({begin} [^`\n]*?)(?:\s+#.*|\s*`.*|)$", re.MULTILINE)
    text = "\n".join(path.read_text(encoding="utf-8") for path in paths)
    return sorted({found.strip() for found in pattern.findall(text)})


PYTHON = [
    line
    for line in shown("python -m benchmarks", [*DOCUMENTS, *SOURCES])
    if "COMMAND" not in line and "--help" not in line
]
PYTEST = shown("pytest benchmarks/ops", [*DOCUMENTS, *SOURCES])


def test_there_are_commands():
    assert {line.split()[3] for line in PYTHON} >= {*COMMANDS}, "a command that nothing shows"
    assert len(PYTEST) >= 4


@pytest.mark.parametrize("line", PYTHON)
def test_its_options_are_taken(line):
    name, *words = shlex.split(line)[3:]
    parser = import_module(f"benchmarks.{COMMANDS[name][0]}").arguments()
    if words:  # the name alone only speaks of it
        parser.parse_args(words)


@pytest.mark.parametrize("line", PYTEST)
def test_pytest_takes_its_options(line, tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)
    monkeypatch.chdir(tmp_path)
    words = [str(ROOT / "benchmarks" / "ops"), *shlex.split(line)[2:], "--tiny", "--collect-only"]
    assert pytest.main([*words, "-q", "-p", "no:cacheprovider"]) == 0
    assert re.search(r"test_op\[\w+-[\w-]+\]", capsys.readouterr().out)
