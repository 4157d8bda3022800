"""Layer-wise learning rate decay: the nearer to the pixels, the smaller the rate.

Source: get_parameter_groups, LayerDecayValueAssigner in optim_factory.py of the official V2 code.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any

from torch import nn

from videomae_fast.training.optimizer import has_no_decay

_FIRST = ("cls_token", "mask_token", "pos_embed")
_BLOCK = re.compile(r"blocks\.(\d+)\.")
_WRAPPERS = re.compile(r"^(?:_orig_mod\.|module\.)+")


def layer_of(name: str, depth: int) -> int:
    """The layer that a parameter of a classifier belongs to, 0 to ``depth + 1``.

    The patch embedding and positions are layer 0, block n is layer n + 1, and everything behind the
    blocks (``fc_norm``, ``head``) is the last. Prefixes of wrappers don't count (officially a
    compiled model has every parameter in the last layer).

    Args:
        name: of the parameter, with the official keys.
        depth: number of blocks.

    Raises:
        ValueError: a block beyond the depth.
    """
    name = _WRAPPERS.sub("", name).removeprefix("encoder.")
    if name in _FIRST or name.startswith("patch_embed."):
        return 0
    block = _BLOCK.match(name)
    if block is None:
        return depth + 1
    if int(block[1]) >= depth:
        raise ValueError(f"{name} belongs to none of {depth} blocks")
    return int(block[1]) + 1


def layer_scales(depth: int, layer_decay: float) -> list[float]:
    """What each layer's learning rate is multiplied by: 1 for the last, index :func:`layer_of`.

    Raises:
        ValueError: a decay that is not above 0 and at most 1.
    """
    if not 0 < layer_decay <= 1:
        raise ValueError(f"layer_decay ({layer_decay}) must be above 0 and at most 1")
    return [layer_decay ** (depth + 1 - layer) for layer in range(depth + 2)]


def layered_groups(
    model: nn.Module,
    *,
    depth: int,
    weight_decay: float,
    layer_decay: float,
    exempt: Collection[str] = (),
) -> list[dict[str, Any]]:
    """Parameter groups by layer and weight decay, in the model's order; frozen ones are in none.

    Each group has ``params``, ``names``, ``weight_decay`` and ``lr_scale``, which the schedule's
    rate is multiplied by. With `layer_decay` 1 there are two groups.

    Args:
        model: a classifier with the official keys.
        depth: its number of blocks.
        weight_decay: of the parameters that have one.
        layer_decay: factor from each layer to the one before it.
        exempt: names that get no weight decay, besides 1-D parameters, biases and ``.scale``.

    Raises:
        ValueError: as :func:`layer_scales`.
    """
    scales = layer_scales(depth, layer_decay)
    groups: dict[tuple[int, bool], dict[str, Any]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        plain = has_no_decay(name, parameter, exempt)
        layer = layer_of(name, depth) if layer_decay < 1 else depth + 1
        group = groups.setdefault(
            (layer, plain),
            {
                "params": [],
                "names": [],
                "weight_decay": 0.0 if plain else weight_decay,
                "lr_scale": scales[layer],
            },
        )
        group["params"].append(parameter)
        group["names"].append(name)
    return list(groups.values())
