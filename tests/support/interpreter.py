"""Triton's interpreter, where no GPU is there to compile for.

Triton decides when it is imported, for the whole process, whether kernels are interpreted. So
tests/conftest.py imports it before anything else can, with the switch on; afterwards only tests of
Triton's kernels see the switch. What needs Triton's compiler without a GPU has to run in a process
of its own (`without_interpreter`).
"""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec

import pytest
import torch

SWITCH = "TRITON_INTERPRET"
ON_GPU = torch.cuda.is_available() and os.environ.get(SWITCH, "0") != "1"


def import_triton() -> None:
    """Imports Triton to interpret kernels, unless there is a GPU (or no Triton)."""
    if ON_GPU or find_spec("triton") is None:
        return
    if "triton" in sys.modules and not hasattr(sys.modules["triton"].language.sum, "rewrite"):
        raise pytest.UsageError(
            "triton was imported to compile before tests/conftest.py could ask for its "
            "interpreter: by a plugin of pytest? (-p no:NAME leaves one out)"
        )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(SWITCH, "1")
        import triton.language  # noqa: F401


def without_interpreter() -> dict[str, str]:
    """The environment of a process in which Triton compiles."""
    return {name: value for name, value in os.environ.items() if name != SWITCH}
