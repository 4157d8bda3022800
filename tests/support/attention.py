"""The families of attention's Triton kernels that tests go through."""

from __future__ import annotations

from importlib import import_module

import pytest
import torch

from tests.support.interpreter import ON_GPU

FAMILIES = ["flash", "two passes", "one pass"]


@pytest.fixture(params=FAMILIES)
def use_short(
    request: pytest.FixtureRequest, interpreted: None, monkeypatch: pytest.MonkeyPatch
) -> bool:
    """Whether the kernels are those of short sequences, whose backward is then the family's."""
    pytest.importorskip("triton")
    short = import_module("videomae_fast.kernels.attention_short")
    launches = {width: tried[0] for width, tried in short.ONE_PASS_LAUNCHES.items()}
    monkeypatch.setattr(short, "ONE_PASS", launches if request.param == "one pass" else {})
    return bool(request.param != "flash")


def refused(use_short: bool, dtype: torch.dtype) -> bool:
    """On a GPU the short sequences' kernels don't take fp32."""
    return ON_GPU and use_short and dtype == torch.float32
