"""Python in processes of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
LIMIT = 300.0
"""Seconds; many times what any of these takes, as a machine may be busy."""


def run_python(code: str, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """What a fresh interpreter does with this code, in the folder of the project.

    Args:
        code: what it runs.
        words: its ``sys.argv`` after the first.
        environment: variables beside this process's.

    Raises:
        subprocess.TimeoutExpired: it took longer than `LIMIT`.
    """
    return subprocess.run(
        [sys.executable, "-c", code, *words],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )


def printed(code: str, *words: str, **environment: str) -> str:
    """What it prints; a code that fails is a failure here, with what it said."""
    done = run_python(code, *words, **environment)
    if done.returncode < 0:
        raise AssertionError(f"ended by signal {-done.returncode}\n{done.stderr}")
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout.strip()


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def is_stopped(pid: int) -> bool:
    """Whether a signal stopped it."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"
