"""The package says its version, installed or not."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import videomae_fast

ROOT = Path(__file__).parent.parent
SAY = "import videomae_fast, sys; print(videomae_fast.__version__, 'torch' in sys.modules)"


def said(tree: Path) -> str:
    """By a Python that knows nothing but this tree: neither installations nor their metadata."""
    command = [sys.executable, "-I", "-S", "-c", f"import sys; sys.path.insert(0, '.'); {SAY}"]
    done = subprocess.run(command, cwd=tree, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_the_version_is_the_projects() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert videomae_fast.__version__ == metadata.version("videomae-fast")
    assert "__version__" in dir(videomae_fast)
    assert said(ROOT) == f"{version} False"


def test_a_copy_in_another_project_does_not_take_its_version(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "other"\nversion = "9"\n')
    (tmp_path / "videomae_fast").mkdir()
    source = (ROOT / "videomae_fast" / "__init__.py").read_text()
    (tmp_path / "videomae_fast" / "__init__.py").write_text(source)
    assert said(tmp_path) == "0+unknown False"
    (tmp_path / "pyproject.toml").unlink()
    assert said(tmp_path) == "0+unknown False"
