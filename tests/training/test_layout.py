"""Which processes hold one copy of the states, as options and worlds say it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from videomae_fast.errors import UsageError
from videomae_fast.recipes import PretrainConfig, changed
from videomae_fast.tasks.pretraining import settings_of
from videomae_fast.training.parallel.layout import Layout, choose_layout, layout_of
from videomae_fast.training.parallel.nodes import Seat
from videomae_fast.training.parallel.world import World


def world(size: int, per_node: int) -> World:
    seats = tuple(Seat(f"node{rank // per_node}", "", per_node) for rank in range(size))
    return World(0, size, torch.device("cpu"), seats=seats)


@pytest.mark.parametrize(
    ("shard", "size", "parts"),
    [("none", 16, 1), ("node", 16, 8), ("all", 16, 16), ("4", 16, 4), ("1", 16, 1), ("all", 1, 1)],
)
def test_the_words(shard: str, size: int, parts: int) -> None:
    assert layout_of(shard, world(size, 8)) == parts


@pytest.mark.parametrize("shard", ["3", "32", "5"])
def test_what_does_not_divide_names_what_does(shard: str) -> None:
    with pytest.raises(UsageError, match=f"shard {shard}: .* possible are 1, 2, 4, 8, 16"):
        layout_of(shard, world(16, 8))


@pytest.mark.parametrize(
    ("memory", "bf16", "reshard"),
    [(None, False, False), (41_000, False, False), (39_000, False, True), (39_000, True, False)],
)
def test_auto_frees_what_is_large(
    monkeypatch: pytest.MonkeyPatch, memory: int | None, bf16: bool, reshard: bool
) -> None:
    monkeypatch.setattr(World, "memory", property(lambda _: memory))
    model, said = nn.Linear(1000, 1, bias=False, device="meta"), list[str]()
    here = world(16, 8)
    options: dict[str, Any] = {"bf16": bf16, "log": said.append}
    assert choose_layout("node", "auto", model, here, **options) == Layout(8, reshard)
    assert "sharded over 8 processes, copies: 2" in said[0]
    assert choose_layout("node", "no", model, here, **options) == Layout(8, False)
    assert choose_layout("none", "auto", model, here, **options) == Layout()
    assert choose_layout("all", "auto", model, world(1, 1), **options) == Layout()
    assert "nothing is sharded" in said[-1]


@pytest.mark.parametrize(
    ("other", "why"),
    [
        ({"optim.optimizer": "apex"}, "its kernels know nothing: use optimizer adamw, or shard no"),
        ({"run.shadow_weights": True}, "are cast already, when they are gathered"),
    ],
)
def test_what_does_not_go_along_is_an_error(other: dict[str, Any], why: str) -> None:
    with pytest.raises(UsageError, match=why):
        settings_of(changed(PretrainConfig(), {"run.shard": "all", **other}))
