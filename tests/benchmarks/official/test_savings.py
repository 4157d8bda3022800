"""Each saving by itself, and all of them: the same loss and gradients as the whole computation."""

from __future__ import annotations

import pytest
import torch

from benchmarks.common.workload import Workload
from benchmarks.contenders.base import Variant
from benchmarks.contenders.build import build
from benchmarks.measure.checks import check, truth
from benchmarks.official.model import select
from benchmarks.official.savings import SAVINGS, SavingPretraining, multiply_adds, needed_targets
from benchmarks.official.step import normalized_images, targets
from videomae_fast import MAEConfig, MaskSpec
from videomae_fast.models.flops import flops

CONFIG = MAEConfig(
    image_size=64, frames=8, width=32, depth=2, heads=2, decoder_width=16, decoder_heads=1,
    decoder_depth=2,
)  # fmt: skip


@pytest.mark.parametrize("masking", ["dual", "encoder-only"])
@pytest.mark.parametrize("savings", [*[(one,) for one in SAVINGS], SAVINGS])
def test_the_function_stays(savings, masking):
    workload = Workload(CONFIG, batch=3)
    against = truth(build("official", Variant("official"), workload, masking))
    for attention in ("eager", "sdpa"):
        variant = Variant("official", savings=savings, attention=attention)
        found = check(build("saving", variant, workload, masking), against)
        assert found.passed, found.told()
        # A saving that were not done would keep as much for the backward pass, at least.
        assert found.kept_bytes > 0


def test_each_saving_keeps_less():
    """Each leaves work out, and with it what that keeps for the backward pass."""
    workload = Workload(CONFIG, batch=3)
    kept = {}
    for savings in ((), ("R2",), ("R3",)):
        contender = build("one", Variant("official", savings=savings), workload, "dual")
        kept[savings] = check(contender, truth(contender)).kept_bytes
    assert kept[("R2",)] < kept[()]
    # ViT sizes: R3's rows are shared by clips; its index and shared rows are small
    assert kept[("R3",)] < 1.1 * kept[()]


@pytest.mark.parametrize("saving", ["R1", "R2", "R3"])
def test_rows_that_are_computed(saving, monkeypatch):
    """The matmuls get as many rows as the arithmetic says."""
    from torch.utils.flop_counter import FlopCounterMode

    workload, spec = Workload(CONFIG, batch=3), MaskSpec()
    counted = {}
    for savings in ((), (saving,)):
        contender = build("one", Variant("official", savings=savings), workload, "dual")
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            contender.loss()
        counted[savings] = counter.get_total_flops() / 2 / workload.batch
        assert counted[savings] == pytest.approx(multiply_adds(CONFIG, spec, savings, 3))
    assert counted[(saving,)] < counted[()]


def test_needless_targets_are_not_made(monkeypatch):
    """Nor are the needed ones made by themselves where that is not asked for."""
    workload = Workload(CONFIG, batch=2)
    for savings, absent in ((("needed-targets",), "targets"), (("R1",), "needed_targets")):
        contender = build("one", Variant("official", savings=savings), workload, "dual")
        with monkeypatch.context() as patch:
            patch.setattr(f"benchmarks.official.savings.{absent}", None)
            contender.loss()


def test_targets_of_some_tokens():
    workload = Workload(CONFIG, batch=2)
    images = normalized_images(workload.frames)
    wanted = ~workload.masks("dual").to_bool()[1]
    torch.testing.assert_close(
        needed_targets(images, wanted, 2, 16), select(targets(images, 2, 16), wanted)
    )


def test_wrong_use():
    with pytest.raises(ValueError, match=r"unknown savings \['R9'\]"):
        SavingPretraining(CONFIG, ["R9"])
    one = MAEConfig(**{**CONFIG.to_dict(), "decoder_depth": 1})
    with pytest.raises(ValueError, match="R2 or R3"):
        SavingPretraining(one, ["R2", "R3"])
    with pytest.raises(ValueError, match="savings is an option of official, not of ours"):
        build("x", Variant("ours", lean=True, savings=("R1",)), Workload(CONFIG, 1), "dual")
    both = Variant("official", savings=("R1",), checkpointing=True)
    with pytest.raises(ValueError, match="checkpointing"):
        build("x", both, Workload(CONFIG, 1), "dual")


def test_nothing_saved_is_the_official_count():
    total = sum(flops(CONFIG, MaskSpec(), "official").values())
    assert multiply_adds(CONFIG, MaskSpec(), (), 4) == total


def test_variants_go_through_json():
    import json

    variant = Variant("ours", backend="reference", op_backends={"linear": "torch"}, lean=True)
    saved = Variant("official", savings=("R1", "R2"))
    for one in (variant, saved):
        assert Variant.from_dict(json.loads(json.dumps(one.to_dict()))) == one
