"""Mixup and cutmix of a batch's clips, against the reference, which is timm's (see test_mixing)."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from tests.support.backends import NATIVE, TRITON
from videomae_fast.errors import BackendUnavailableError
from videomae_fast.ops import mix_clips

BOXES = [(0, 0, 0, 0), (1, 4, 2, 9), (0, 5, 0, 11), (4, 5, 10, 11), (3, 3, 0, 11), (0, 5, 7, 7)]


def drawn(batch: int, device: str) -> tuple[torch.Tensor, torch.Tensor]:
    own = torch.linspace(0, 1, batch, dtype=torch.float64, device=device)
    boxes = torch.tensor([BOXES[i % len(BOXES)] for i in range(batch)], device=device)
    return own, boxes


@pytest.mark.parametrize("impl", [NATIVE, TRITON])
@pytest.mark.parametrize("batch", [1, 2, 5, 6])
def test_it_is_the_reference(batch: int, impl: str, device: str) -> None:
    """Blended, cut, wholly another, and odd numbers of clips, whose middle one is its own."""
    clips = torch.randn(batch, 3, 5, 11, 3, device=device)
    own, boxes = drawn(batch, device)
    found = mix_clips(clips, own, boxes, impl=impl)
    assert torch.equal(found, mix_clips(clips, own, boxes, impl="reference"))


@pytest.mark.parametrize("impl", [TRITON])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_rounded_once(dtype: torch.dtype, impl: str, device: str) -> None:
    clips = torch.randn(4, 1, 5, 11, 3, device=device).to(dtype)
    own, boxes = drawn(4, device)
    found = mix_clips(clips, own, boxes, impl=impl)
    exact = mix_clips(clips.double(), own, boxes, impl="reference")
    assert found.dtype == dtype
    unit = torch.finfo(dtype).eps
    assert ((found.double() - exact).abs() <= unit * (exact.abs() + 1e-3)).all()


@pytest.mark.parametrize("impl", [NATIVE, TRITON])
def test_every_value_is_written(impl: str, device: str, poisoned: Callable[..., object]) -> None:
    clips = torch.randn(2, 2, 40, 41, 3, device=device)[:, :, ::2]
    own, boxes = drawn(2, device)
    found = mix_clips(clips, own, boxes, impl=impl)
    assert found.is_contiguous()
    assert torch.equal(found, mix_clips(clips, own, boxes, impl="reference"))
    assert mix_clips(clips[:, :0], own, boxes, impl=impl).shape == (2, 0, 20, 41, 3)


def test_what_does_not_fit_is_refused(interpreted: None) -> None:
    clips, (own, boxes) = torch.zeros(2, 1, 4, 4, 3), drawn(2, "cpu")
    with pytest.raises(BackendUnavailableError, match="not fp64"):
        mix_clips(clips.double(), own, boxes, impl="triton")
    with pytest.raises(BackendUnavailableError, match=r"not torch\.bfloat16"):
        mix_clips(clips.bfloat16(), own, boxes, impl="native")
    with pytest.raises(ValueError, match="clips must be floating point"):
        mix_clips(clips.byte(), own, boxes)
    with pytest.raises(ValueError, match=r"own must be fp64 \[2\]"):
        mix_clips(clips, own.float(), boxes)
    with pytest.raises(ValueError, match=r"boxes must be int64 \[2, 4\]"):
        mix_clips(clips, own, boxes[:1])
