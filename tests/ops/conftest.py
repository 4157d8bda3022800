"""What the tests of ops share.

A test with a parameter `impl` of "triton", and one that uses `interpreted` (as `kernels` do), sees
Triton's switch: without a GPU its kernels are interpreted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib import import_module
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.support.interpreter import ON_GPU, SWITCH


def _impl(request: pytest.FixtureRequest) -> str | None:
    call = getattr(request.node, "callspec", None)
    return call.params.get("impl") if call else None


@pytest.fixture
def interpreted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Triton's kernels run in the interpreter, where there is no GPU."""
    if not ON_GPU:
        monkeypatch.setenv(SWITCH, "1")


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


@pytest.fixture
def poisoned(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Outputs start as NaN (integers as the largest), so that a value never written shows.

    Not where something is compiled: the compiler keeps what it finds of torch's functions.
    """

    def poison(allocate: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def allocate_poisoned(*args: object, **kwargs: object) -> Tensor:
            tensor = allocate(*args, **kwargs)
            if tensor.is_floating_point():
                return tensor.fill_(float("nan"))
            return tensor.fill_(torch.iinfo(tensor.dtype).max)

        return allocate_poisoned

    with monkeypatch.context() as patch:
        for where, name in (
            (torch, "empty"),
            (torch, "empty_like"),
            (torch.Tensor, "new_empty"),
        ):
            patch.setattr(where, name, poison(getattr(where, name)))
        yield


@pytest.fixture
def sabotage(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """A function that breaks a kernel for the rest of a test, to see that its check notices.

    Launches of the kernel `name` of a kernels' module get ``change(value)`` for the positional
    argument number `place`.
    """

    class Broken:
        def __init__(self, kernel: Any, place: int, change: Callable[[Any], Any]) -> None:
            self.kernel, self.place, self.change = kernel, place, change

        def __getitem__(self, grid: Any) -> Callable[..., None]:
            def launch(*args: Any, **kwargs: Any) -> None:
                changed = list(args)
                changed[self.place] = self.change(changed[self.place])
                self.kernel[grid](*changed, **kwargs)

            return launch

    def apply(module: Any, name: str, place: int, change: Callable[[Any], Any]) -> None:
        monkeypatch.setattr(module, name, Broken(getattr(module, name), place, change))

    return apply
