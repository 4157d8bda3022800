"""Clips, masks and losses for the forks' tiny models."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor

BATCH, TOKENS = 3, 8  # 4 frames of 32 × 32 pixels in cubes of 2 × 16 × 16


@cache
def clips() -> Tensor:
    """fp32 [3, 3, 4, 32, 32], with some large values."""
    found = torch.randn(BATCH, 3, 4, 32, 32, generator=torch.Generator().manual_seed(2))
    found[:, :, :2, :16, :16] *= 9
    return found


@cache
def mask(hidden: int = 4) -> Tensor:
    """bool [3, 8], True for `hidden` tokens of each clip."""
    order = torch.rand(BATCH, TOKENS, generator=torch.Generator().manual_seed(3)).argsort(1)
    return order < hidden


@cache
def decode_mask() -> Tensor:
    """bool [3, 8], True = not decoded: decoded are two of the hidden tokens."""
    order = torch.where(mask(), torch.arange(TOKENS), TOKENS).argsort(1).argsort(1)
    return order >= 2


def distance(out: Any) -> Tensor:
    """A scalar in which every value of an output counts differently."""
    parts = out if isinstance(out, tuple | list) else [getattr(out, "logits", out)]
    generator = torch.Generator().manual_seed(4)
    total = torch.zeros(())
    for part in parts:
        target = torch.randn(part.shape, generator=generator)
        total = total + (part.float() - target).square().mean()
    return total


def pretraining(model: Any, number: int = 0) -> Tensor:
    """With the encoder's mask alone and with the decoder's too, in turns."""
    if number % 2:
        return distance(model(clips(), mask()))
    return distance(model(clips(), mask(), decode_mask()))


def classification(model: Any, number: int = 0) -> Tensor:
    return distance(model(clips()))
