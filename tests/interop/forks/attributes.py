"""Attributes, tables and parameters that users set, before or after a model is accelerated."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from tests.interop.forks.changes import (
    ATTN,
    BLOCK,
    DECODER_WIDTH,
    MLP,
    PATCH,
    PROJ,
    WIDTH,
    Case,
    halves,
    part,
    sets,
)
from tests.interop.forks.comparing import Change


def in_place(path: str, name: str) -> Change:
    def change(model: Any) -> None:
        with torch.no_grad():
            getattr(part(model, path), name).mul_(0.3)

    return change


def grows(table: Tensor) -> nn.Parameter:
    return nn.Parameter(table.detach() + 0.5)


def shares(model: Any) -> None:
    first, second = model.encoder.blocks
    second.mlp.fc1.weight = first.mlp.fc1.weight


def freezes(*paths: str) -> Change:
    def change(model: Any) -> None:
        for path in paths:
            part(model, path).requires_grad_(False)

    return change


ALL: dict[str, Case] = {
    "encoder.pos_embed": Case(sets("encoder", pos_embed=lambda old: 2 * old + 1)),
    "encoder.pos_embed in place": Case(in_place("encoder", "pos_embed")),
    "encoder.pos_embed.data": Case(
        lambda m: setattr(m.encoder.pos_embed, "data", 2 * m.encoder.pos_embed)
    ),
    "encoder.pos_embed, a parameter": Case(sets("encoder", pos_embed=grows)),
    "encoder.pos_embed, longer": Case(
        sets("encoder", pos_embed=lambda old: torch.cat([old, old], 1)), raises=True
    ),
    "encoder.pos_embed, one row": Case(sets("encoder", pos_embed=lambda old: old[:, :1])),
    "encoder.pos_embed, one per clip": Case(
        sets("encoder", pos_embed=lambda old: old * torch.arange(3)[:, None, None])
    ),
    "encoder.pos_embed, bf16": Case(sets("encoder", pos_embed=lambda old: old.bfloat16())),
    "model.pos_embed": Case(sets("", pos_embed=lambda old: 2 * old + 1)),
    "model.pos_embed in place": Case(in_place("", "pos_embed")),
    "model.pos_embed, a parameter": Case(sets("", pos_embed=grows)),
    "classifier's pos_embed": Case(sets("", pos_embed=lambda old: 2 * old + 1), True),
    "classifier's pos_embed, a parameter": Case(sets("", pos_embed=grows), True),
    "mask_token": Case(sets("", mask_token=lambda old: nn.Parameter(old.detach() + 1))),
    "mask_token, per clip": Case(
        sets(
            "", mask_token=lambda old: nn.Parameter(torch.arange(3.0)[:, None, None] - old.detach())
        )
    ),
    "mask_token, no parameter": Case(
        lambda m: (
            m._parameters.pop("mask_token") is None
            or setattr(m, "mask_token", torch.ones(1, 1, DECODER_WIDTH))
        )
    ),
    "attn.scale": Case(sets(ATTN, scale=lambda old: 2 * old)),
    "attn.scale, a parameter": Case(
        lambda m: (
            delattr(part(m, ATTN), "scale")
            or setattr(part(m, ATTN), "scale", nn.Parameter(torch.tensor(0.4)))
        )
    ),
    "attn.num_heads": Case(sets(ATTN, num_heads=1)),
    "attn.q_bias, None": Case(sets(ATTN, q_bias=lambda old: None)),
    "attn.v_bias": Case(sets(ATTN, v_bias=grows)),
    "qkv.bias": Case(sets(ATTN + ".qkv", bias=lambda old: nn.Parameter(torch.ones(3 * WIDTH)))),
    "proj.bias, None": Case(sets(ATTN + ".proj", bias=lambda old: None)),
    "norm.eps": Case(sets(BLOCK + ".norm1", eps=0.4)),
    "encoder.norm.eps": Case(sets("encoder.norm", eps=0.4)),
    "norm.bias, None": Case(sets(BLOCK + ".norm1", bias=lambda old: None)),
    "norm.normalized_shape": Case(sets("encoder.norm", normalized_shape=(4, WIDTH)), raises=True),
    "gamma_1 and gamma_2": Case(
        sets(
            BLOCK,
            gamma_1=lambda old: nn.Parameter(torch.full((WIDTH,), 0.5)),
            gamma_2=lambda old: nn.Parameter(torch.full((WIDTH,), 0.7)),
        )
    ),
    "gamma_1 alone": Case(sets(BLOCK, gamma_1=lambda old: 0.5), raises=True),
    "gammas removed": Case(
        sets(BLOCK, gamma_1=lambda old: None, gamma_2=lambda old: None),
        settings={"init_values": 0.5},
    ),
    "drop_prob": Case(sets(BLOCK + ".drop_path", drop_prob=0.6), settings={"drop_path": 0.3}),
    "drop_prob, None": Case(
        sets(BLOCK + ".drop_path", drop_prob=lambda old: None), settings={"drop_path": 0.3}
    ),
    "attn_drop.p": Case(sets(ATTN + ".attn_drop", p=0.3)),
    "proj_drop.p": Case(sets(ATTN + ".proj_drop", p=0.3)),
    "mlp.drop.p": Case(sets(MLP + ".drop", p=0.3)),
    "mlp.drop.p back to 0": Case(sets(MLP + ".drop", p=0.0), settings={"drop": 0.2}),
    "dropout": Case(lambda m: None, settings={"drop": 0.2}),
    "classifier's dropout": Case(lambda m: None, True, settings={"drop": 0.2}),
    "act.approximate": Case(sets(MLP + ".act", approximate="tanh")),
    "with_cp": Case(sets("encoder", with_cp=True)),
    "weights shared": Case(shares),
    "frozen embedding": Case(freezes(PATCH)),
    "frozen encoder": Case(freezes("encoder")),
    "frozen linears": Case(freezes(MLP + ".fc1", ATTN + ".qkv")),
    "frozen norms": Case(freezes(BLOCK + ".norm1", "encoder.norm", "decoder.norm")),
    "frozen, all but a norm": Case(
        lambda m: (
            m.requires_grad_(False) is None
            or (part(m, BLOCK + ".norm1").requires_grad_(True) and None)
        )
    ),
    "weight.data": Case(
        lambda m: setattr(part(m, ATTN).qkv.weight, "data", 2 * part(m, ATTN).qkv.weight.data)
    ),
    "weight, another parameter": Case(sets(MLP + ".fc1", weight=lambda old: grows(old))),
    "weight's gradient by a hook": Case(lambda m: halves(part(m, MLP).fc1)),
    "proj's gradient by a hook": Case(lambda m: halves(part(m, PROJ))),
    "proj.stride": Case(sets(PROJ, stride=(2, 8, 8)), raises=True),
    "proj.padding": Case(
        sets(PROJ, padding=(0, 8, 8), _reversed_padding_repeated_twice=[8, 8, 8, 8, 0, 0]),
        raises=True,
    ),
    "img_size": Case(sets(PATCH, img_size=(48, 48)), raises=True),
    "one block in eval mode": Case(
        lambda m: (
            setattr(part(m, BLOCK), "train", lambda mode=True: part(m, BLOCK))
            or (part(m, BLOCK + ".drop_path").eval() and None)
        ),
        settings={"drop_path": 0.5},
    ),
    "channels_last": Case(lambda m: m.to(memory_format=torch.channels_last_3d) and None),
}
