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
from typing import Any

import numpy as np
import pytest
import torch

from tests.support.quick_interpreter import quicken

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
    _round_to_e4m3()
    quicken()


def _round_to_e4m3() -> None:
    """Lets the interpreter round fp32 to e4m3 as GPUs do: to nearest even, ±448 at most.

    Its own conversion drops the carry of a mantissa (127 becomes 64), and NaN (a number).
    """
    from triton.runtime import interpreter

    theirs = interpreter._convert_float

    def convert(data: Any, given: Any, wanted: Any, rounding: Any) -> Any:
        if str(wanted) != "fp8e4nv" or str(given) != "fp32":
            return theirs(data, given, wanted, rounding)
        exact = torch.from_numpy(np.frombuffer(data.tobytes(), np.float32).copy())
        rounded = exact.clamp(-448, 448).to(torch.float8_e4m3fn)  # clamp leaves NaN
        return rounded.view(torch.uint8).numpy()

    interpreter._convert_float = convert


def without_interpreter() -> dict[str, str]:
    """The environment of a process in which Triton compiles."""
    return {name: value for name, value in os.environ.items() if name != SWITCH}
