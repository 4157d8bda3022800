"""The official training step, transcribed: targets of all tokens, weighted loss, AdamW.

Source: engine_for_pretraining.py, optim_factory.py and utils.py of the official V2 code.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import nullcontext

import torch
from einops import rearrange
from torch import Tensor, nn

from benchmarks.official.model import select
from videomae_fast.ops import IMAGENET_MEAN, IMAGENET_STD


def per_channel(values: tuple[float, ...], device: torch.device) -> Tensor:
    """[1, 3, 1, 1, 1], made on the host and copied, as the official engine does each step."""
    return torch.as_tensor(values).to(device)[None, :, None, None, None]


def normalized_images(frames: Tensor) -> Tensor:
    """uint8 [B, T, H, W, 3] to what the official loader delivers: fp32 [B, 3, T, H, W], contiguous,
    ``(x / 255 - mean) / std``.
    """
    images = rearrange(frames, "b t h w c -> b c t h w").contiguous().float() / 255
    mean, std = (per_channel(v, frames.device) for v in (IMAGENET_MEAN, IMAGENET_STD))
    return (images - mean) / std


def cubes(images: Tensor, tubelet: int, patch: int) -> Tensor:
    """[B, 3, T, H, W] to [B, N, tubelet · patch · patch, 3]; tokens in the order t, h, w."""
    layout = "b c (t p0) (h p1) (w p2) -> b (t h w) (p0 p1 p2) c"
    return rearrange(images, layout, p0=tubelet, p1=patch, p2=patch)


@torch.no_grad()
def targets(images: Tensor, tubelet: int, patch: int, *, normalize: bool = True) -> Tensor:
    """The target of every token, fp32 [B, N, 3 · tubelet · patch²], from normalised images."""
    mean, std = (per_channel(v, images.device) for v in (IMAGENET_MEAN, IMAGENET_STD))
    pixels = cubes(images * std + mean, tubelet, patch)
    if normalize:
        centred = pixels - pixels.mean(dim=-2, keepdim=True)
        deviation = pixels.var(dim=-2, unbiased=True, keepdim=True).sqrt()
        pixels = centred / (deviation + 1e-6)
    return pixels.flatten(2)


def pretraining_loss(
    model: Callable[..., Tensor],
    images: Tensor,
    encoder_mask: Tensor,
    decoder_mask: Tensor,
    *,
    tubelet: int,
    patch: int,
    autocast: torch.dtype | None = None,
) -> Tensor:
    """Scalar fp32: mean over the decoded tokens that the encoder did not see.

    Args:
        model: :class:`benchmarks.official.model.OfficialPretraining`, compiled or not.
        images: fp32 [B, 3, T, H, W], normalised.
        encoder_mask, decoder_mask: bool [B, N], True = masked. Without a decoder mask the official
            loader gives ``~encoder_mask`` for it.
        autocast: dtype of the model's matmuls; targets are fp32 in any case.
    """
    label = select(targets(images, tubelet, patch), ~decoder_mask)
    mixed = nullcontext() if autocast is None else torch.autocast(images.device.type, autocast)
    with mixed:
        error = ((model(images, encoder_mask, decoder_mask) - label) ** 2).mean(dim=-1)
        counted = encoder_mask[~decoder_mask].reshape(error.shape)
        return (error * counted).sum() / counted.sum()


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, object]]:
    """With and without weight decay, as the official code groups them."""
    plain: list[nn.Parameter] = []
    exempt: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        small = parameter.ndim == 1 or name.endswith((".bias", "mask_token"))
        (exempt if small else plain).append(parameter)
    return [
        {"params": plain, "weight_decay": weight_decay},
        {"params": exempt, "weight_decay": 0.0},
    ]


def gradient_norm(model: nn.Module) -> Tensor:
    """The norm that the official step computes in any case, to log it."""
    norms = [p.grad.detach().norm(2.0) for p in model.parameters() if p.grad is not None]
    total: Tensor = torch.stack(norms).norm(2.0)
    return total


def check_finite(loss: Tensor) -> float:
    """Reads the loss back from the device, each step, as the official engine does.

    Raises:
        FloatingPointError: it is not finite.
    """
    value = loss.item()
    if not math.isfinite(value):
        raise FloatingPointError(f"loss is {value}")
    return value
