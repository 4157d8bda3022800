"""Inputs on which whole models are compared: two clips of the model's own size, and masks."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

# Takes the model and what draws normal numbers; gives its inputs, and which of them is the clips
Probe = Callable[[nn.Module, Callable[..., Tensor]], tuple[tuple[Any, ...], Tensor]]


def _official_pretraining(model: Any, random: Callable[..., Tensor]) -> tuple[Any, Tensor]:
    x = _clips(model.encoder.patch_embed, model.pos_embed, random)
    tokens = model.pos_embed.shape[1]
    masks = [_mask(tokens, tokens // 10, random)]
    if "decode_mask" in inspect.signature(model.forward).parameters:
        masks.append(_mask(tokens, tokens // 4, random))
    return (x, *masks), x


def _official_classifier(model: Any, random: Callable[..., Tensor]) -> tuple[Any, Tensor]:
    x = _clips(model.patch_embed, model.pos_embed, random)
    return (x,), x


def _hugging_face_pretraining(model: Any, random: Callable[..., Tensor]) -> tuple[Any, Tensor]:
    x = _pixel_values(model.config, random)
    tokens = model.position_embeddings.shape[1]
    return (x, _mask(tokens, tokens // 10, random)), x


def _hugging_face_embeddings(module: Any, random: Callable[..., Tensor]) -> tuple[Any, Tensor]:
    x = _pixel_values(module.config, random)
    tokens = module.position_embeddings.shape[1]
    return (x, _mask(tokens, tokens // 10, random)), x


def _hugging_face_encoder(module: Any, random: Callable[..., Tensor]) -> tuple[Any, Tensor]:
    x = random(2, 24, module.config.hidden_size)
    return (x,), x


def _clips(patches: Any, table: Tensor, random: Callable[..., Tensor]) -> Tensor:
    """[2, C, T, H, W]: one clip more than none shows what differs from clip to clip."""
    height, width = patches.img_size
    tubelet, patch, _ = patches.proj.kernel_size
    slots = table.shape[1] // ((height // patch) * (width // patch))
    return random(2, patches.proj.in_channels, slots * tubelet, height, width)


def _pixel_values(config: Any, random: Callable[..., Tensor]) -> Tensor:
    """[2, T, C, H, W]."""
    side = config.image_size
    height, width = side if isinstance(side, (tuple, list)) else (side, side)
    return random(2, config.num_frames, config.num_channels, height, width)


def _mask(tokens: int, kept: int, random: Callable[..., Tensor]) -> Tensor:
    """bool [2, tokens], False at as many tokens of each clip, not the same ones."""
    order = random(2, tokens).argsort(1)
    return torch.ones_like(order, dtype=torch.bool).scatter(1, order[:, : max(3, kept)], False)


PROBES: dict[str, Probe] = {
    "PretrainVisionTransformer": _official_pretraining,
    "VisionTransformer": _official_classifier,
    "VideoMAEForPreTraining": _hugging_face_pretraining,
    "VideoMAEEmbeddings": _hugging_face_embeddings,
    "VideoMAEEncoder": _hugging_face_encoder,
}
