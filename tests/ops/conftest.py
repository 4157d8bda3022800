"""What the tests of ops share.

A test with a parameter `impl` of "triton", and one that uses `interpreted` (as `kernels` do), sees
Triton's switch: without a GPU its kernels are interpreted.
"""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

import pytest

from tests.support.interpreter import ON_GPU
from tests.support.kernel_fixtures import (
    errors_belong_to_their_test,
    interpreted,
    poisoned,
    sabotage,
)

__all__ = ["errors_belong_to_their_test", "interpreted", "poisoned", "sabotage"]


def _impl(request: pytest.FixtureRequest) -> str | None:
    call = getattr(request.node, "callspec", None)
    return call.params.get("impl") if call else None


@pytest.fixture(autouse=True)
def _interpreter(request: pytest.FixtureRequest) -> None:
    if _impl(request) == "triton":
        request.getfixturevalue("interpreted")


@pytest.fixture
def kernels(interpreted: None, request: pytest.FixtureRequest) -> ModuleType:
    """The module of Triton kernels that is called as the file of the test."""
    pytest.importorskip("triton")
    name = request.path.stem.removeprefix("test_")
    return import_module(f"videomae_fast.kernels.{name}")


@pytest.fixture
def device(request: pytest.FixtureRequest) -> str:
    """Where the backend of a test runs: "cuda" for Triton's kernels on a GPU."""
    return "cuda" if ON_GPU and _impl(request) in (None, "triton") else "cpu"
