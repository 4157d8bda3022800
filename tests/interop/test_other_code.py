"""Known blocks in models that are not known, and the draws of drop path."""

from __future__ import annotations

import inspect

import pytest
import torch

from tests.support import other_code, stand_ins
from tests.support.official_models import assert_equal, loss_of, pretraining, randomise, weighted
from videomae_fast import accelerate
from videomae_fast.interop.acceleration import code

ROLES = {
    other_code.Block: "Block",
    other_code.CheckpointedBlock: "CheckpointedBlock",
    other_code.AdapterBlock: "AdapterBlock",
    other_code.FusedAttention: "FusedAttention",
    other_code.TimmDropPath: "DropPath",
}


@pytest.fixture(autouse=True)
def _known():
    torch.manual_seed(0)
    for kind, role in ROLES.items():
        code.accept(role, kind)
    names = code.NAMES
    names.update({kind.__name__: (role,) for kind, role in ROLES.items()})
    yield
    for kind, role in ROLES.items():
        code.withdraw(role, kind)
        names.pop(kind.__name__, None)
    names["Block"] = ("Block", "CheckpointedBlock", "AdapterBlock")


@pytest.mark.parametrize(
    ("block", "size", "fused"),
    [
        (stand_ins.Block, (), True),
        (other_code.Block, (), False),
        (other_code.CheckpointedBlock, (), False),
        (other_code.AdapterBlock, (3, 1), False),
    ],
)
@pytest.mark.parametrize("training", [False, True])
def test_known_blocks_in_a_model_that_is_not(block, size, fused, training):
    model = randomise(other_code.Backbone(block, size=size)).train(training)
    report = accelerate(model)
    assert str(report).startswith("blocks of Backbone, accelerated")
    assert "blocks.* (3): LayerNorm with residual" in str(report)
    assert ("blocks.*.mlp (3): tests.support.other_code.FeedForward" in str(report)) != fused
    assert "attn" not in str(report)
    x = torch.randn(2, 12, 5)
    assert_equal(report.compare(lambda m: weighted(m, x)))


def test_a_clip_that_needs_no_gradient_is_not_recomputed():
    model = randomise(other_code.Backbone(other_code.CheckpointedBlock)).requires_grad_(False)
    accelerate(model)
    assert not model(torch.randn(2, 12, 5)).requires_grad


@pytest.mark.parametrize("kind", ["dual", "encoder-only"])
def test_drop_path_draws_what_the_module_draws(kind, monkeypatch):
    """timm draws uniform numbers where newer code draws Bernoulli's: losses are the same anyway."""
    monkeypatch.setattr(stand_ins, "DropPath", other_code.TimmDropPath)
    model = pretraining(drop_path=0.4).train()
    report = accelerate(model)
    assert "DropPath" not in str(report)
    assert_equal(report.compare(loss_of(kind)))
    assert "rand(" in inspect.getsource(other_code.timm_drop_path)


def test_drop_path_under_autocast_draws_in_the_lower_precision():
    model = pretraining(drop_path=0.4).train()
    report = accelerate(model)

    def loss(m):
        with torch.autocast("cpu", torch.bfloat16):
            return loss_of("dual")(m)

    # The same clips drop, so what is left is the rounding of bf16
    assert report.compare(loss).loss_error < 0.02
