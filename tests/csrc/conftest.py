"""Tests of the compiled library against float64 truths. Only who switches it off may skip them."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import torch

from tests.support.kernel_fixtures import poisoned
from videomae_fast.ops import _native
from videomae_fast.ops._native.loader import SWITCH

__all__ = ["poisoned"]


@pytest.fixture(autouse=True)
def _library() -> None:
    if _native.library() is not None:
        return
    if os.environ.get(SWITCH) == "0":
        pytest.skip(_native.why_missing())
    pytest.fail(_native.why_missing())


@pytest.fixture(autouse=True)
def _poison(poisoned: None) -> None: ...


@pytest.fixture(params=[1, 3])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    """Sets torch's thread count, which the native ops use."""
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)
