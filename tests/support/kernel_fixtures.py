"""Fixtures of tests that run Triton's kernels; a conftest imports what its folder needs."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.support.interpreter import ON_GPU, SWITCH


@pytest.fixture
def interpreted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Triton's kernels run in the interpreter, where there is no GPU."""
    if not ON_GPU:
        monkeypatch.setenv(SWITCH, "1")


@pytest.fixture(autouse=True)
def errors_belong_to_their_test(request: pytest.FixtureRequest) -> Iterator[None]:
    """A kernel's fault shows at the next call that waits for the GPU: here, not in another test.

    After it nothing works on the GPU in this process. One of several test processes ends with it:
    that is reported as this test's failure, and another process goes on with the rest.
    """
    yield
    if not ON_GPU:
        return
    try:
        torch.cuda.synchronize()
    except Exception as error:
        if "PYTEST_XDIST_WORKER" not in os.environ:
            raise
        print(f"{request.node.nodeid}: {error}", file=sys.__stderr__, flush=True)
        os._exit(70)


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
        for where, name in ((torch, "empty"), (torch, "empty_like"), (torch.Tensor, "new_empty")):
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
