"""The commit of a tree that has no ``.git``: it comes with the tree, in a file.

    python -m benchmarks commit        # or: make gpu-commit

writes ``COMMIT.json`` beside ``.git``: the commit and a checksum of every tracked source file. Git
ignores the file; it travels with a copy of the tree. There :func:`tree_commit` reads it, and says
with a "+" where a file is not the one that was checked in: a record never names a commit that its
numbers are not of.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
FILE = "COMMIT.json"
# What no number depends on
OTHERS = ("benchmarks/results/", "docs/")


def tree_commit(root: Path = ROOT) -> dict[str, Any]:
    """For a record: "commit" (None: not known; with "+": changed since), and where it is from."""
    found = git_commit(root) if _is_repository(root) else None
    if found is not None:
        return {"commit": found, "commit_from": "git"}
    path = root / FILE
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        commit, files = str(told["commit"]), dict(told["files"])
    except FileNotFoundError:
        return {"commit": None, "commit_from": f"nowhere: no .git, and no {FILE} (make gpu-commit)"}
    except (OSError, ValueError, TypeError, KeyError) as error:
        return {"commit": None, "commit_from": f"nowhere: {FILE}: {type(error).__name__}: {error}"}
    changed = sorted(name for name, value in files.items() if _checksum(root / name) != value)
    if not changed:
        return {"commit": commit, "commit_from": FILE}
    others = f" and {len(changed) - 3} more" if len(changed) > 3 else ""
    return {
        "commit": commit.rstrip("+") + "+",
        "commit_from": f"{FILE}; changed since: {', '.join(changed[:3])}{others}",
    }


def git_commit(folder: Path) -> str | None:
    """The commit of a folder's repository, with "+" where tracked files differ from it."""
    try:
        head, changed = (
            _git(folder, *words)
            for words in (["rev-parse", "--short", "HEAD"], ["status", "--porcelain", "-uno"])
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return head + ("+" if changed else "")


def write(root: Path = ROOT, to: Path | None = None) -> Path:
    """Writes the file of a repository's tree as it is; changes that are not committed give "+".

    Args:
        to: another place for it, such as a copy of the tree.

    Raises:
        RuntimeError: no repository here.
    """
    commit = git_commit(root) if _is_repository(root) else None
    if commit is None:
        raise RuntimeError(f"{root} is no git repository with a commit")
    names = [name for name in _git(root, "ls-files", "-z").split("\0") if name]
    files = {
        name: _checksum(root / name)
        for name in names
        if not name.startswith(OTHERS) and not (root / name).is_symlink()
    }
    path = to or root / FILE
    told = {"commit": commit, "files": {name: value for name, value in files.items() if value}}
    path.write_text(json.dumps(told, indent=0) + "\n", encoding="utf-8")
    return path


def _is_repository(root: Path) -> bool:
    """Whether it is one itself: a copy may lie within another one's tree."""
    try:
        return Path(_git(root, "rev-parse", "--show-toplevel")).resolve() == root.resolve()
    except (OSError, subprocess.CalledProcessError):
        return False


def _git(folder: Path, *words: str) -> str:
    done = subprocess.run(["git", *words], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def _checksum(path: Path) -> str | None:
    """Of a file's bytes; None where there is none."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    except OSError:
        return None


def arguments() -> argparse.ArgumentParser:
    """The parser of ``commit``."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks commit", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    return parser


def main(argv: Sequence[str]) -> int:
    """Writes the file.

    Returns:
        1 where this is no repository.
    """
    arguments().parse_args(argv)
    try:
        written = write()
    except RuntimeError as problem:
        print(f"error: {problem}", file=sys.stderr)
        return 1
    print(f"written: {written.name}, commit {tree_commit()['commit']}")
    return 0
