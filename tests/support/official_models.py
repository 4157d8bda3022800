"""Stand-ins of official models with inputs and losses, for comparisons before and after."""

from __future__ import annotations

import torch
from torch import nn

from benchmarks.official.step import normalized_images, pretraining_loss
from tests.support import stand_ins
from videomae_fast import Masks, MaskSpec
from videomae_fast.masks import Grid

GRID = Grid(4, 2, 2)  # of the stand-ins' default size
SPECS = {
    "dual": MaskSpec(encoder_ratio=0.5),
    "encoder-only": MaskSpec(encoder_ratio=0.5, decoder="none"),
}


def randomise(model: nn.Module) -> nn.Module:
    """Weights under which every parameter matters, biases and norms too."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.add_(0.1 * noise if parameter.ndim > 1 else 0.3 * noise)
    return model


def frames(batch: int = 3, size: int = 32) -> torch.Tensor:
    generator = torch.Generator().manual_seed(2)
    return torch.randint(0, 256, (batch, 8, size, size, 3), dtype=torch.uint8, generator=generator)


def masks_of(kind: str, batch: int = 3) -> Masks:
    return Masks.from_seeds(torch.arange(batch) + 5, GRID, SPECS[kind])


def pretraining(**settings) -> nn.Module:
    return randomise(stand_ins.PretrainVisionTransformer(**settings))


def classifier(**settings) -> nn.Module:
    return randomise(stand_ins.VisionTransformer(**settings))


def loss_of(kind: str):
    """The official loss of a pre-training model as a function of the model."""
    images = normalized_images(frames())
    encoder_mask, decoder_mask = masks_of(kind).to_bool()

    def loss(model):
        return pretraining_loss(
            model, images, encoder_mask, decoder_mask, tubelet=2, patch=16, autocast=None
        )

    return loss


def weighted(model: nn.Module, *inputs) -> torch.Tensor:
    """A scalar of a model's output in which every value counts differently."""
    out = model(*inputs)
    out = getattr(out, "logits", out)
    generator = torch.Generator().manual_seed(3)
    return (out.float() * torch.randn(out.shape, generator=generator)).mean()


def assert_equal(comparison, tolerance: float = 1e-5) -> None:
    assert comparison.loss != 0
    assert comparison.loss_error < tolerance, comparison
    assert comparison.gradient_error < tolerance, comparison
    # Gradients of some biases nearly cancel, so their own error is relative to little
    assert comparison.worst_error < 30 * tolerance, comparison
