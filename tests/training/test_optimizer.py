"""Parameter groups and the optimizer's state by name."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from videomae_fast.models.config import MAEConfig
from videomae_fast.models.masked_autoencoder import MaskedAutoencoder
from videomae_fast.training.errors import CheckpointError
from videomae_fast.training.optimizer import (
    load_optimizer_state,
    make_optimizer,
    optimizer_state,
    parameter_groups,
)


def model(**changed: Any) -> MaskedAutoencoder:
    shape = {"image_size": 32, "frames": 4, "width": 32, "depth": 1, "heads": 2,
             "decoder_width": 16, "decoder_depth": 1, "decoder_heads": 1}  # fmt: skip
    return MaskedAutoencoder(MAEConfig(**{**shape, **changed}))


def test_the_official_groups() -> None:
    net = model(learned_positions=True, layer_scale=0.1)
    groups = parameter_groups(net, 0.05, net.no_weight_decay())
    names = {id(p): name for name, p in net.named_parameters()}
    decay, no_decay = ({names[id(p)] for p in group["params"]} for group in groups)
    assert [group["weight_decay"] for group in groups] == [0.05, 0.0]
    assert decay | no_decay == set(names.values())
    # Weights of linear layers and of the patch embedding decay, and nothing else.
    assert decay == {
        name for name in names.values() if name.endswith(".weight") and "norm" not in name
    }
    assert {"mask_token", "encoder.pos_embed", "encoder.blocks.0.gamma_1"} <= no_decay
    assert {"encoder.blocks.0.attn.q_bias", "encoder.norm.weight", "decoder.head.bias"} <= no_decay


def test_a_scale_has_no_decay_whatever_its_shape() -> None:
    net = nn.Module()
    net.scale_of = nn.Module()
    net.scale_of.scale = nn.Parameter(torch.ones(2, 2))
    net.frozen = nn.Parameter(torch.ones(2, 2), requires_grad=False)
    assert [(len(g["params"]), g["weight_decay"]) for g in parameter_groups(net, 0.1)] == [(1, 0.0)]


def test_state_by_name_and_back() -> None:
    net, other = model(), model()
    first = make_optimizer(parameter_groups(net, 0.1), betas=(0.9, 0.95))
    for parameter in net.parameters():
        parameter.grad = torch.randn_like(parameter)
    first.step()
    second = make_optimizer(parameter_groups(other, 0.1), betas=(0.9, 0.95))
    load_optimizer_state(other, second, optimizer_state(net, first))
    for name, tensor in optimizer_state(other, second).items():
        assert torch.equal(tensor, optimizer_state(net, first)[name]), name
    assert optimizer_state(other, second)["step.mask_token"] == 1
    part = dict(list(optimizer_state(net, first).items())[1:])
    with pytest.raises(CheckpointError, match="does not fit"):
        load_optimizer_state(other, second, part)
