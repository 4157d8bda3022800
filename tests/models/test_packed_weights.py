"""Packed weights: the same features, and a reason where nothing is packed."""

from __future__ import annotations

import copy
from collections.abc import Callable
from importlib import import_module

import pytest
import torch
from torch import nn

from tests.support.random_weights import TINY, randomised
from videomae_fast import MAEConfig, MaskedAutoencoder, VideoClassifier
from videomae_fast.models import packed_weights
from videomae_fast.models.frozen import FrozenFeatures
from videomae_fast.models.packed_weights import pack_weights
from videomae_fast.models.transformer import Mlp, set_fused_mlp
from videomae_fast.ops.linear import packed_linear_gelu

pytestmark = [
    pytest.mark.without_gpu,
    pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="torch without oneDNN"),
]


@pytest.fixture(autouse=True)
def on_every_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where packing is worth it: by oneDNN."""
    monkeypatch.setattr(import_module("videomae_fast.ops.linear"), "WHY_NO_GAIN", None)


def classifier() -> VideoClassifier:
    model = randomised(VideoClassifier(MAEConfig(**TINY, layer_scale=0.1), 5))
    assert isinstance(model, VideoClassifier)
    return model


def clips(count: int, side: int = 32) -> torch.Tensor:
    return torch.rand(count, 4, side, side, 3, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("pooling", ["clip", "tokens"])
def test_features_stay(pooling: str) -> None:
    pretrained = randomised(MaskedAutoencoder(MAEConfig(**TINY)))
    assert isinstance(pretrained, MaskedAutoencoder)
    for model in (classifier(), pretrained.encoder):
        plain = FrozenFeatures(copy.deepcopy(model), pooling)  # type: ignore[arg-type]
        packed = FrozenFeatures(model, pooling)  # type: ignore[arg-type]
        assert packed.pack(4, (32, 32)) is None
        layouts = {
            one.weight.layout for one in model.blocks.modules() if isinstance(one, nn.Linear)
        }
        assert layouts == {torch._mkldnn}  # type: ignore[attr-defined]
        for given in (clips(1), clips(3), clips(2, side=48)):  # others than it was packed for, too
            torch.testing.assert_close(packed(given), plain(given), rtol=1e-5, atol=1e-5)


def test_gelu_is_in_the_matmul(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else hidden values are written twice."""
    calls = list[int]()

    def counted(*args: torch.Tensor) -> torch.Tensor:
        calls.append(1)
        return packed_linear_gelu(*args)

    def refused(*_args: torch.Tensor) -> torch.Tensor:
        raise AssertionError("GELU by itself")

    monkeypatch.setattr("videomae_fast.models.transformer.packed_linear_gelu", counted)
    monkeypatch.setattr("videomae_fast.models.transformer.bias_gelu", refused)
    frozen = FrozenFeatures(classifier())
    assert frozen.pack(4, (32, 32)) is None
    frozen(clips(1))
    assert len(calls) == TINY["depth"]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda model: model.train(), "training mode"),
        (lambda model: set_fused_mlp(model, True), "fused"),
        (lambda model: model.double(), "float64"),
        (lambda model: model.to("meta"), "on meta"),
        (lambda model: pack_weights(model, 8), "packed already"),
    ],
)
def test_what_is_left_as_it_is(change: Callable[[nn.Module], object], reason: str) -> None:
    model = classifier()
    change(model)
    packed = [one.packed for one in model.modules() if isinstance(one, Mlp)]
    told = pack_weights(model, 8)
    assert told is not None
    assert reason in told
    assert packed == [one.packed for one in model.modules() if isinstance(one, Mlp)]


def test_nothing_is_gained_where_torch_is_fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packed_weights, "why_not_packed", lambda: "for Intel's processors")
    model = classifier()
    assert pack_weights(model, 8) == "for Intel's processors"
    assert not any(one.packed for one in model.modules() if isinstance(one, Mlp))


def test_not_under_autocast() -> None:
    with torch.autocast("cpu", torch.bfloat16):
        assert "autocast" in str(pack_weights(classifier(), 8))
