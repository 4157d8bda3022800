"""opcheck of every op with its Triton backend, and one graph around each."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch.library import opcheck

from tests.support.op_cases import OF_A_BACKEND, opcheck_cases
from videomae_fast.ops.registry import REGISTRY

OPS = torch.ops.videomae_fast
pytestmark = pytest.mark.usefixtures("interpreted")
WITH_TRITON = sorted(name for name, op in REGISTRY.items() if "triton" in op.backends)


def arguments(name: str, device: str) -> tuple[Any, ...]:
    """The op's case with its last argument, the backend, changed to Triton's."""
    torch.manual_seed(0)
    *args, impl = opcheck_cases()[name]
    assert impl in ("auto", "reference")

    def moved(arg: Any) -> Any:
        if isinstance(arg, list):
            return [moved(one) for one in arg]
        if not isinstance(arg, torch.Tensor):
            return arg
        return arg.detach().to(device).requires_grad_(arg.requires_grad)

    return (*map(moved, args), "triton")


def test_what_has_no_kernel() -> None:
    """Linear layers, which are the library's of the device, and views of labelled clips."""
    views = {"rand_augment", "resized_view"}
    layers = {f"{name}{way}" for name in ("linear", "fp8_linear") for way in ("", "_backward")}
    assert set(REGISTRY) - set(WITH_TRITON) == {*layers, *views}


@pytest.mark.parametrize("name", WITH_TRITON)
def test_opcheck(name: str, device: str) -> None:
    opcheck(getattr(OPS, name).default, arguments(name, device), test_utils=OF_A_BACKEND)


@pytest.mark.parametrize("name", WITH_TRITON)
def test_launches_are_on_the_device_of_the_tensors(
    name: str, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Triton launches on the current device, which need not be where the tensors are."""
    from triton import JITFunction
    from triton.runtime.interpreter import InterpretedFunction

    entered: list[torch.Tensor] = []
    launches: list[bool] = []

    @contextmanager
    def device_of(tensor: torch.Tensor) -> Iterator[None]:
        entered.append(tensor)
        yield
        entered.pop()

    def watched(run: Callable[..., Any]) -> Callable[..., Any]:
        def launch(*args: Any, **kwargs: Any) -> Any:
            launches.append(bool(entered))
            return run(*args, **kwargs)

        return launch

    monkeypatch.setattr(torch.cuda, "device_of", device_of)
    for kind in (JITFunction, InterpretedFunction):
        monkeypatch.setattr(kind, "run", watched(kind.run))
    getattr(OPS, name)(*arguments(name, device))
    assert launches
    assert all(launches)


@pytest.mark.parametrize("name", [n for n in WITH_TRITON if not n.endswith("_backward")])
def test_one_graph(name: str, device: str) -> None:
    """torch.compile(fullgraph=True): the values and gradients of the op by itself."""
    args = arguments(name, device)
    inputs = [arg for arg in args if isinstance(arg, torch.Tensor) and arg.requires_grad]

    def values(function: Callable[..., Any]) -> list[torch.Tensor]:
        out = function(*args)
        outputs = list(out) if isinstance(out, (tuple, list)) else [out]
        learnt = [one for one in outputs if one.requires_grad]
        if not learnt:
            return outputs
        total = torch.stack([one.double().square().sum() for one in learnt]).sum()
        return [*outputs, *torch.autograd.grad(total, inputs)]

    op = getattr(OPS, name)

    def call(*inner: Any) -> Any:
        return op(*inner)

    torch.compiler.reset()  # the function above is the same code for every op
    plain = values(call)
    whole = values(torch.compile(call, fullgraph=True, backend="aot_eager"))
    for one, other in zip(plain, whole, strict=True):
        torch.testing.assert_close(one, other)
