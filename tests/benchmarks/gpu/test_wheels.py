"""Packages for a machine without an index: fetched, cut up, put together, installed; offline."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from benchmarks.gpu import wheels
from benchmarks.gpu.wheels import MANIFEST, SETS, WheelError

ROOT = Path(__file__).parents[3]


def wheel(folder: Path, name: str, files: dict[str, bytes], *needs: str) -> Path:
    """A wheel that pip takes."""
    module = name.replace("-", "_")
    path = folder / f"{module}-1.0-py3-none-any.whl"
    required = "".join(f"Requires-Dist: {need}\n" for need in needs)
    info = f"{module}-1.0.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n{required}"
    with zipfile.ZipFile(path, "w") as archive:
        for file, content in files.items():
            archive.writestr(file, content)
        archive.writestr(f"{info}/METADATA", metadata)
        archive.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{info}/RECORD", "")
    return path


@pytest.fixture
def fetched(tmp_path, monkeypatch):
    """Two wheels, one of them in pieces, fetched into three folders of a set called "reading"."""
    monkeypatch.setattr(wheels, "PIECE", 40_000)
    monkeypatch.setattr(wheels, "PART", 70_000)

    def download(names, options, folder):
        big = {"inner/big_module.py": b"value = 7\n", "data.bin": os.urandom(100_000),
               "big.pth": b"inner\n"}  # fmt: skip
        wheel(folder, "big-module", big, "small>=1", "numpy", "absent; extra == 'all'",
              "older; python_version < '3.11'")  # fmt: skip
        wheel(folder, "small", {"nvidia/small.py": b""})

    monkeypatch.setattr(wheels, "_download", download)
    folder = tmp_path / ".wheels"
    return folder, wheels.fetch("reading", folder)


def test_parts_are_small_enough_and_say_what_they_are_of(fetched):
    folder, parts = fetched
    assert [part.name for part in parts] == ["1", "2"]
    for part in parts:
        pieces = [path for path in part.iterdir() if path.name != MANIFEST]
        assert sum(path.stat().st_size for path in pieces) <= 70_000
        told = json.loads((part / MANIFEST).read_text())
        assert (told["set"], told["parts"], told["needs"]) == ("reading", 2, ["numpy"])
    assert sorted(path.name for path in folder.glob("reading/*/big*")) == [
        f"big_module-1.0-py3-none-any.whl.{i}" for i in range(3)
    ]


def test_parts_come_one_at_a_time(fetched, tmp_path):
    """As many commands as there are parts; the last one installs."""
    _, parts = fetched
    staging, target, here = tmp_path / "staged", tmp_path / "site", tmp_path / "came"
    for number, part in enumerate(parts):
        shutil.rmtree(here, ignore_errors=True)
        shutil.copytree(part, here / "reading" / part.name)
        missing = wheels.install("reading", here, staging, target)
        assert bool(missing) == (number < len(parts) - 1)
        assert target.exists() == (not missing)
    code = "import big_module, nvidia.small; print(big_module.value)"
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(target)},
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.stdout == "7\n", done.stderr
    assert "extend_path" in (target / "nvidia" / "__init__.py").read_text()


def test_what_is_wrong_is_said(fetched, tmp_path):
    folder, parts = fetched
    staging, target = tmp_path / "staged", tmp_path / "site"
    with pytest.raises(WheelError, match="no part of dali"):
        wheels.install("dali", folder, staging, target)
    piece = next(parts[0].glob("*.whl*"))
    piece.write_bytes(b"x" + piece.read_bytes()[1:])
    with pytest.raises(WheelError, match="is damaged: fetch reading again"):
        wheels.install("reading", folder, staging, target)
    (parts[0] / MANIFEST).write_text("{}")
    with pytest.raises(WheelError, match="different downloads"):
        wheels.install("reading", folder, staging, target)


def test_needs_that_the_machine_lacks(fetched, tmp_path):
    folder, parts = fetched
    for part in parts:
        path = part / MANIFEST
        path.write_text(path.read_text().replace('"numpy"', '"no-such-package"'))
    with pytest.raises(WheelError, match="needs no-such-package, which this machine lacks"):
        wheels.install("reading", folder, tmp_path / "staged", tmp_path / "site")


def test_what_an_index_does_not_have(monkeypatch, tmp_path):
    monkeypatch.setitem(SETS, "reading", wheels.Wanted(("no-such-package-at-all",)))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    assert wheels.main(["fetch", "reading", "--folder", str(tmp_path / "w")]) == 1


def test_the_command_waits_for_what_is_missing(fetched, tmp_path, capsys):
    folder, parts = fetched
    shutil.move(parts[1], tmp_path / "later")
    words = ["install", "reading", "--folder", str(folder), "--staging", str(tmp_path / "s"),
             "--to", str(tmp_path / "site")]  # fmt: skip
    assert wheels.main(words) == 3
    assert "still missing: " in capsys.readouterr().out
    shutil.move(tmp_path / "later", parts[1])
    assert wheels.main(words) == 0
    assert "reading: installed" in capsys.readouterr().out


def test_it_needs_nothing_but_python():
    """The machine has no environment of ours: -S hides all that is installed."""
    done = subprocess.run(
        [sys.executable, "-S", "-m", "benchmarks", "wheels", "install", "--help"],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "flash-attn-4" in done.stdout


def test_what_it_writes_is_ignored():
    for path in (wheels.WHEELS, wheels.STAGING, wheels.TARGET):
        name = f"{path.relative_to(ROOT)}/x"
        done = subprocess.run(["git", "check-ignore", name], cwd=ROOT, capture_output=True)
        assert done.returncode == 0 or not (ROOT / ".git").exists(), name
