"""Every command in CONTRIBUTING.md can be run, and every file that it names is there.

What sets up, tests and measures takes minutes, so `make` only tells what it would do, and of
`pytest` it is looked whether there is something to run.
"""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.documents import ROOT, commands
from tests.support.interpreter import without_interpreter

DOCUMENT = "CONTRIBUTING.md"
TEXT = (ROOT / DOCUMENT).read_text(encoding="utf-8")
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
PYTHON = ".venv/bin/python"
FOLDERS = "kernels|csrc|videomae_fast|benchmarks|tests|docs|constraints|\\.ci"


def quoted() -> list[str]:
    """What stands in backquotes, outside of blocks of commands."""
    prose = re.sub(r"^```.*?^```", "", TEXT, flags=re.MULTILINE | re.DOTALL)
    return re.findall(r"`([^`\n]+)`", prose)


def targets() -> set[str]:
    declared = re.search(r"^\.PHONY:((?:.*\\\n)*.*)", MAKEFILE, re.MULTILINE)
    assert declared
    return set(declared[1].replace("\\\n", " ").split())


def made() -> list[str]:
    """Commands of make, in blocks and in the text."""
    return [c for c in (*commands(DOCUMENT), *quoted()) if c.startswith("make ")]


@pytest.mark.parametrize("command", sorted(set(made())))
def test_make_knows_what_to_do(command: str) -> None:
    words = shlex.split(command)
    assert words[1] in targets(), f"the Makefile has no target {words[1]}"
    told = subprocess.run(
        ["make", "--dry-run", *words[1:]], cwd=ROOT, capture_output=True, text=True
    )
    assert told.returncode == 0, told.stderr
    for word in words[2:]:  # a variable that no recipe reads would be ignored
        assert word.partition("=")[2] in told.stdout, f"{word} changes nothing"


def of_python(begin: str) -> list[str]:
    return [c for c in commands(DOCUMENT) if c.startswith(f"{PYTHON} {begin}")]


def test_all_commands_have_a_check() -> None:
    checked = {*made(), *of_python("-m pytest "), *of_python("tests/kernels/aot.py ")}
    assert checked > set(commands(DOCUMENT))
    assert len(commands(DOCUMENT)) > 12


@pytest.mark.parametrize("command", of_python("-m pytest "))
def test_pytest_finds_tests(command: str) -> None:
    paths, _, chosen = command.partition(" -m pytest ")[2].partition(" -k ")
    found = [ROOT / path for path in shlex.split(paths)]
    assert all(path.is_dir() or path.name.startswith("test_") for path in found)
    for path in found:
        files = sorted(path.glob("test_*.py")) if path.is_dir() else [path]
        names = re.findall(r"^def (test_\w+)", "".join(f.read_text() for f in files), re.MULTILINE)
        assert any(chosen in name for name in (*names, path.name)), f"{path}: no {chosen}"


@pytest.mark.without_gpu
@pytest.mark.parametrize("command", of_python("tests/kernels/aot.py "))
def test_a_case_is_compiled(command: str) -> None:
    pytest.importorskip("triton")
    done = subprocess.run(
        [sys.executable, *shlex.split(command)[1:]], cwd=ROOT, env=without_interpreter(),
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert "bias_gelu._forward sm_90 Usage(registers=" in done.stdout


def test_the_files_are_there() -> None:
    paths = [quote for quote in quoted() if re.match(rf"({FOLDERS})/", quote)]
    assert len(paths) > 30
    for path in paths:
        assert (ROOT / path).exists(), path


def test_the_names_are_those_of_the_code() -> None:
    """Functions and tests that the walks speak of stand in the files that they name."""
    for path, names in {
        "videomae_fast/ops/bias_gelu.py": (
            "bias_gelu gelu_reference _backward_reference declare Gradient triton native"
        ),
        "kernels/bias_gelu.py": "Launch",
        "tests/support/op_cases.py": "opcheck_cases",
        "tests/ops/test_ops.py": "test_every_op_is_checked",
        "videomae_fast/data/decoders/torchcodec.py": "why_not check_numbers DecodeError",
        "videomae_fast/data/decoders/base.py": "VideoReader",
        "videomae_fast/data/decoders/agreement.py": "check_numbers",
        "videomae_fast/data/decoders/__init__.py": "DECODERS",
    }.items():
        assert path in TEXT
        source = (ROOT / path).read_text(encoding="utf-8")
        for name in names.split():
            assert name in TEXT, name
            assert re.search(rf"\b{name}\b", source), f"{path}: {name}"


def test_links_lead_to_files_and_their_headings() -> None:
    for target, heading in re.findall(r"\]\((?!https?:)([^)#]+)(?:#([^)]+))?\)", TEXT):
        linked = Path(ROOT / target)
        assert linked.exists(), target
        if heading:
            titles = re.findall(r"^#+ (.*)", linked.read_text(encoding="utf-8"), re.MULTILINE)
            slugs = {re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in titles}
            assert heading in slugs, f"{target}#{heading}"
