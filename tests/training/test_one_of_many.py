"""What one of many processes holds, beside the plan's formulas."""

from __future__ import annotations

import json

import pytest
import torch

from benchmarks.scale.cluster import Layout, Model, states
from tests.support.one_of_many import BLOCKS, PROCESSES
from tests.support.processes import printed
from videomae_fast import MAEConfig, MaskedAutoencoder
from videomae_fast.models.transformer import Block


def test_states_of_one_of_64_are_the_planned_ones() -> None:
    """What the tracker says of the optimizer within its step is wrong: it counts after."""
    said = printed("from tests.support.one_of_many import main; main()")
    found = json.loads(said.splitlines()[-1])
    with torch.device("meta"):
        model = MaskedAutoencoder(MAEConfig.from_size("base", **BLOCKS))
    sizes = [
        sum(p.numel() for p in module.parameters())
        for module in model.modules()
        if isinstance(module, Block)
    ]
    total = sum(p.numel() for p in model.parameters())
    peak, after = found["peak"], found["after"]
    assert peak["SHARDED_PARAM"] == pytest.approx(4 * total / PROCESSES, rel=1e-3)
    assert after["OPT"] == pytest.approx(8 * total / PROCESSES, rel=1e-3)
    assert after["UNSHARDED_PARAM"] == after["UNSHARDED_GRAD"] == after["SHARDED_GRAD"] == 0
    planned = states(Model(total, max(sizes), sum(sizes), len(sizes)), Layout(PROCESSES, 64, True))
    kinds = ("SHARDED_PARAM", "UNSHARDED_PARAM", "SHARDED_GRAD", "UNSHARDED_GRAD", "ALL_GATHER",
             "REDUCE_SCATTER")  # fmt: skip
    held = sum(peak[kind] for kind in kinds) + after["OPT"]
    assert 0.2 * planned < held <= planned
