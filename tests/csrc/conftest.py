"""Tests of the compiled library against float64 truths. Only who switches it off may skip them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import pytest
import torch

from videomae_fast.ops import _native
from videomae_fast.ops._native.loader import SWITCH


@pytest.fixture(autouse=True)
def _library() -> None:
    if _native.library() is not None:
        return
    if os.environ.get(SWITCH) == "0":
        pytest.skip(_native.why_missing())
    pytest.fail(_native.why_missing())


@pytest.fixture(autouse=True)
def _poison(monkeypatch: pytest.MonkeyPatch) -> None:
    """Outputs start as NaN (or as all bits set), so that a value that is never written shows."""

    def poisoned(allocate: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
        def allocate_poisoned(*args: object, **kwargs: object) -> torch.Tensor:
            tensor = allocate(*args, **kwargs)
            return tensor.fill_(float("nan")) if tensor.is_floating_point() else tensor.fill_(-1)

        return allocate_poisoned

    for where, name in ((torch, "empty"), (torch, "empty_like"), (torch.Tensor, "new_empty")):
        monkeypatch.setattr(where, name, poisoned(getattr(where, name)))


@pytest.fixture(params=[1, 3])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    """Sets torch's thread count, which the native ops use."""
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)
