"""The Triton kernels on a GPU where there is one, otherwise in Triton's interpreter on the CPU."""

from __future__ import annotations

import pytest

from tests.support.interpreter import ON_GPU
from tests.support.kernel_fixtures import errors_belong_to_their_test, interpreted, poisoned

__all__ = ["errors_belong_to_their_test", "interpreted", "poisoned"]


@pytest.fixture
def device() -> str:
    """Where the kernels run: "cuda", or "cpu" with the interpreter."""
    return "cuda" if ON_GPU else "cpu"


@pytest.fixture(autouse=True)
def _interpreter(interpreted: None) -> None: ...


@pytest.fixture(autouse=True)
def _poison(poisoned: None) -> None: ...
