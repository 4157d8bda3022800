"""Copies that ought to be equal, by their checksums."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from videomae_fast.recipes import PretrainConfig
from videomae_fast.training import pretrain
from videomae_fast.training.errors import ReplicaError
from videomae_fast.training.parallel.layout import Layout
from videomae_fast.training.parallel.replicas import check_replicas, checksums, differing
from videomae_fast.training.parallel.world import World

NAMES = ("a", "b", "c")


def test_any_bit_shows() -> None:
    model = nn.Linear(5, 3)
    model.register_parameter("more", nn.Parameter(torch.ones(4, dtype=torch.bfloat16)))
    before = checksums(model).tolist()
    assert len(before) == 3
    for place, parameter in enumerate(model.parameters()):
        bits = parameter.detach().view(
            torch.int32 if parameter.element_size() == 4 else torch.int16
        )
        for bit in (0, 14):
            bits.view(-1)[1] ^= 1 << bit
            found = checksums(model).tolist()
            assert [one != other for one, other in zip(found, before, strict=True)] == [
                place == each for each in range(3)
            ]
            bits.view(-1)[1] ^= 1 << bit
    assert checksums(model).tolist() == before


@pytest.mark.parametrize(
    ("every", "parts", "expected"),
    [
        ([[1, 2, 3]] * 4, 1, {}),
        ([[1, 2, 3], [1, 2, 3], [1, 9, 9]], 1, {2: ["b", "c"]}),
        ([[1, 2, 3], [1, 2, 4]], 1, {0: ["c"], 1: ["c"]}),
        ([[1, 2, 3], [4, 5, 6], [1, 2, 3], [4, 5, 6]], 2, {}),
        ([[1, 2, 3], [4, 5, 6], [1, 2, 3], [4, 5, 7]], 2, {1: ["c"], 3: ["c"]}),
        ([[1, 2, 3], [4, 5, 6]] * 2 + [[1, 2, 3], [0, 5, 6]], 2, {5: ["a"]}),
    ],
)
def test_who_differs(every: list[list[int]], parts: int, expected: dict[int, list[str]]) -> None:
    assert differing(every, NAMES, parts) == expected


def test_the_error_names_rank_host_and_weight(monkeypatch: pytest.MonkeyPatch) -> None:
    world, model = World(0, 3, torch.device("cpu")), nn.Linear(2, 2)

    def gather(_: World, own: tuple[list[int], str]) -> list[tuple[list[int], str]]:
        return [own, ([own[0][0] + 1, own[0][1]], "node7"), own]

    monkeypatch.setattr(World, "gather", gather)
    with pytest.raises(ReplicaError) as caught:
        check_replicas(model, Layout(), world, 12)
    assert "after step 11" in str(caught.value)
    assert "bits: rank 1 on node7 in weight. So a device" in str(caught.value)


def test_one_copy_is_compared_with_none(
    tiny: Callable[..., PretrainConfig], tmp_path: Path
) -> None:
    said: list[str] = []
    pretrain(tiny(steps=2, check_replicas_every=1), output=tmp_path, log=said.append)
    assert "check_replicas_every: there is one copy of the weights, so none is compared" in said
