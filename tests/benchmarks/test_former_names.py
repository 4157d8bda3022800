"""The benchmarks' former spellings run the commands of today."""

from __future__ import annotations

import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from benchmarks.__main__ import COMMANDS
from benchmarks.former_names import FORMER, run

ROOT = Path(__file__).parents[2]


def test_each_is_a_command_now_and_no_module():
    for name, command in FORMER.items():
        assert command in COMMANDS
        with pytest.raises(ImportError, match=f"now the command: python -m benchmarks {command}$"):
            import_module(f"benchmarks.{name}")
    with pytest.raises(ModuleNotFoundError, match=r"No module named 'benchmarks\.stepp'"):
        import_module("benchmarks.stepp")


@pytest.mark.parametrize("name", sorted(FORMER))
def test_it_runs_with_a_warning(name, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", [*sys.argv])
    told = f"is now python -m benchmarks {FORMER[name]};"
    with pytest.warns(FutureWarning, match=told), pytest.raises(SystemExit, match=r"^0$"):
        run(name, ["--help"])
    assert f"usage: python -m benchmarks {FORMER[name]}" in capsys.readouterr().out


def test_as_it_was_called():
    words = [sys.executable, "-m", "benchmarks.tables", "/nowhere.json"]
    child = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    assert child.returncode == 2
    assert "python -m benchmarks.tables is now python -m benchmarks report" in child.stderr
    assert "/nowhere.json" in child.stderr.splitlines()[-1]
