"""Tiny models whose every parameter is random, biases and norms too."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from videomae_fast import MAEConfig, MaskedAutoencoder, VideoClassifier
from videomae_fast.interop import SourceHints

TINY: dict[str, Any] = {
    "image_size": 32,
    "frames": 4,
    "width": 32,
    "depth": 2,
    "heads": 2,
    "decoder_width": 16,
    "decoder_depth": 1,
    "decoder_heads": 1,
}
TOLD = SourceHints(heads=2, decoder_heads=1, frames=4, image_size=32)
TOLD_CLASSIFIER = SourceHints(heads=2, frames=4, image_size=32)


def randomised(model: torch.nn.Module, seed: int = 0) -> torch.nn.Module:
    """The model with noise added to each parameter, so that no bias is zero and no norm one."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.add_(noise, alpha=0.05 if parameter.ndim > 1 else 0.3)
    return model.eval()


def pretraining(**changed: Any) -> dict[str, Tensor]:
    """The same tensors each time."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = MaskedAutoencoder(MAEConfig(**{**TINY, **changed}))
    return dict(randomised(model).state_dict())


def classifier(classes: int = 7, **changed: Any) -> dict[str, Tensor]:
    """The same tensors each time."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = VideoClassifier(MAEConfig(**{**TINY, **changed}), classes)
    return dict(randomised(model).state_dict())


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    """Same keys, dtypes and bits."""
    return one.keys() == other.keys() and all(
        value.dtype == other[key].dtype and torch.equal(value, other[key])
        for key, value in one.items()
    )
