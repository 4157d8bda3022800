"""Generators that are seeded at every step."""

from __future__ import annotations

import traceback

import pytest
import torch

from tests.support.devices import NEEDS_GPU
from videomae_fast.seeding import seed_generators

CUDA = pytest.param("cuda", marks=NEEDS_GPU)


@pytest.mark.parametrize("device", ["cpu", CUDA])
def test_what_is_drawn_is_what_torchs_own_seed_draws(device: str) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(2**63 - 3)
        expected = [torch.rand(5), torch.rand(5, device=device)]
        seed_generators(torch.device(device), 2**63 - 3)
        assert torch.equal(torch.rand(5), expected[0])
        assert torch.equal(torch.rand(5, device=device), expected[1])


def test_no_stack_is_formatted(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        raise AssertionError("a stack was formatted")

    monkeypatch.setattr(traceback, "format_stack", refuse)
    with torch.random.fork_rng(devices=[]):
        seed_generators(torch.device("cpu"), 1)
        with pytest.raises(AssertionError, match="a stack was formatted"):
            torch.manual_seed(1)  # why there is another
