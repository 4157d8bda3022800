"""Every kernel compiles for sm_80, sm_90 and sm_100 within its budget: tests/kernels/aot.py."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.interpreter import without_interpreter

pytest.importorskip("triton")


@pytest.mark.without_gpu
def test_kernels_compile_within_their_budget():
    """In a process of its own: here Triton's interpreter is on, which compiles nothing."""
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("aot.py"))],
        env=without_interpreter(), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr[-2000:]}"


def test_it_refuses_to_run_interpreted():
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("aot.py"))],
        env={**os.environ, "TRITON_INTERPRET": "1"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode != 0
    assert "unset TRITON_INTERPRET" in done.stderr
