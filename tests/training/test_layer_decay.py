"""Groups by layer against the official ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from videomae_fast import MAEConfig, VideoClassifier
from videomae_fast.training.layer_decay import layer_of, layer_scales, layered_groups

GOLDEN = json.loads(
    (Path(__file__).parents[1] / "golden" / "downstream_param_groups.json").read_text()
)
SIZES: dict[str, Any] = {"small": "small", "giant": "giant"}


@pytest.mark.parametrize("case", GOLDEN, ids=lambda c: f"{c['model']}-{c['layer_decay']}")
def test_groups_are_the_official_ones(case: dict[str, Any]) -> None:
    size = next(size for name, size in SIZES.items() if name in case["model"])
    with torch.device("meta"):
        model = VideoClassifier(MAEConfig.from_size(size), 400)
    groups = layered_groups(
        model,
        depth=case["num_layers"],
        weight_decay=case["weight_decay"],
        layer_decay=case["layer_decay"],
        exempt=model.no_weight_decay(),
    )
    own = {(g["lr_scale"], g["weight_decay"], tuple(sorted(g["names"]))) for g in groups}
    official = {
        (g["lr_scale"], g["weight_decay"], tuple(sorted(g["names"]))) for g in case["groups"]
    }
    assert own == official
    if case["layer_decay"] < 1:
        assert layer_scales(case["num_layers"], case["layer_decay"]) == case["values"]


def test_wrappers_change_no_layer() -> None:
    for prefix in ("", "_orig_mod.", "module.", "module._orig_mod."):
        assert layer_of(f"{prefix}blocks.3.mlp.fc1.weight", 12) == 4
        assert layer_of(f"{prefix}patch_embed.proj.bias", 12) == 0
        assert layer_of(f"{prefix}head.weight", 12) == 13


def test_frozen_parameters_are_in_no_group() -> None:
    model = nn.ModuleDict({"head": nn.Linear(3, 2), "fc_norm": nn.LayerNorm(3)})
    model["head"].requires_grad_(False)
    groups = layered_groups(model, depth=2, weight_decay=0.1, layer_decay=0.5)
    assert [group["names"] for group in groups] == [["fc_norm.weight", "fc_norm.bias"]]


@pytest.mark.parametrize("decay", [0.0, 1.1, float("nan")])
def test_impossible_decays_are_refused(decay: float) -> None:
    with pytest.raises(ValueError, match="layer_decay"):
        layer_scales(2, decay)


def test_a_block_beyond_the_depth_is_refused() -> None:
    with pytest.raises(ValueError, match=r"blocks\.5\.x belongs to none of 5"):
        layer_of("blocks.5.x", 5)
