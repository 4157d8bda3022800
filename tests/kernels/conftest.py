"""The Triton kernels on a GPU where there is one, otherwise in Triton's interpreter on the CPU."""

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
def device() -> str:
    """Where the kernels run: "cuda", or "cpu" with the interpreter."""
    return "cuda" if ON_GPU else "cpu"


@pytest.fixture(autouse=True)
def _interpreter(monkeypatch: pytest.MonkeyPatch) -> None:
    if not ON_GPU:
        monkeypatch.setenv(SWITCH, "1")


@pytest.fixture(autouse=True)
def _poison(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Outputs start as NaN (integers as the largest), so that a value never written shows."""

    def poisoned(allocate: Callable[..., Tensor]) -> Callable[..., Tensor]:
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
            patch.setattr(where, name, poisoned(getattr(where, name)))
        yield


@pytest.fixture(autouse=True)
def _errors_belong_to_their_test(request: pytest.FixtureRequest) -> Iterator[None]:
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


# One unit in the last place of each dtype, relative; the interpreter cuts fp32 -> bf16 off instead
# of rounding it.
_UNIT = {torch.float32: 2.0**-23, torch.bfloat16: 2.0**-7, torch.float16: 2.0**-10}


@pytest.fixture
def assert_accurate() -> Callable[..., None]:
    """A function that asserts: error <= the reference's error + tolerance, element by element.

    The truth is in fp64, the reference of the kernel's dtype. The tolerance is one unit in the last
    place of the dtype, relative to the truth, plus `absolute` (for sums that cancel).
    """

    def check(out: Tensor, reference: Tensor, truth: Tensor, absolute: float = 1e-6) -> None:
        assert out.dtype == reference.dtype
        assert out.shape == reference.shape == truth.shape
        exact = truth.double()
        error = (out.double() - exact).abs()
        theirs = (reference.double() - exact).abs()
        allowed = theirs + exact.abs() * _UNIT[out.dtype] + absolute
        assert out.isfinite().all(), "values missing or not finite"
        worst = int((error - allowed).argmax()) if error.numel() else 0
        assert (error <= allowed).all(), (
            f"error {error.flatten()[worst]:.3g}, allowed {allowed.flatten()[worst]:.3g} "
            f"at {worst}; truth {exact.flatten()[worst]:.6g}"
        )

    return check
