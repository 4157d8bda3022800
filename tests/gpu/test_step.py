"""A training step of ours on a GPU: right in every mode, and the same bits every time."""

from __future__ import annotations

import pytest
import torch

from benchmarks.common.workload import MASKINGS, Workload
from benchmarks.contenders.base import Contender, Variant
from benchmarks.contenders.build import build
from benchmarks.measure.checks import check, truth
from benchmarks.measure.timing import timed_step
from tests.support.devices import NEEDS_GPU
from videomae_fast import MAEConfig

# Head dims as ViT-g's (88, padded in kernels) and ViT-B's (64), 160 tokens as the encoders have
CONFIG = MAEConfig(
    image_size=224, width=176, depth=2, heads=2, decoder_width=128, decoder_heads=2, decoder_depth=2
)
SMALL = MAEConfig(
    image_size=64, frames=8, width=32, depth=2, heads=2, decoder_width=16, decoder_heads=1,
    decoder_depth=2,
)  # fmt: skip
MODES = {
    "eager": {},
    "compiled": {"compiled": True},
    "captured": {"captured": True},
    "compiled and captured": {"compiled": True, "captured": True},
    "captured, copies of weights": {"captured": True, "shadow_weights": True},
}


@pytest.fixture(scope="module", params=["cpu", pytest.param("cuda", marks=NEEDS_GPU)])
def workload(request) -> Workload:
    device = request.param
    return Workload(CONFIG if device == "cuda" else SMALL, 4, device=device)


def ours(workload: Workload, **options) -> Contender:
    precision = "bf16" if workload.device == "cuda" else "fp32"
    return build(
        "ours", Variant("ours", precision=precision, lean=True, **options), workload, "dual"
    )


def trained(contender: Contender, steps: int) -> dict[str, torch.Tensor]:
    """The weights after some steps."""
    for _ in range(steps):
        timed_step(contender, phases=False)
    with contender.whole_weights():
        return {name: value.clone() for name, value in contender.model.state_dict().items()}


def test_training_twice_gives_the_same_bits(workload):
    """With attention by our kernels: torch's backward may add up in any order."""
    options = {"op_backends": {"attention": "triton"}} if workload.device == "cuda" else {}
    first, second = (trained(ours(workload, **options), 5) for _ in range(2))
    moved = [name for name, value in first.items() if not torch.equal(value, second[name])]
    assert moved == []
    assert any(not torch.equal(value, workload.state[name].to(value.device))
               for name, value in first.items())  # fmt: skip


def combinations():
    """Mode, precision, masking: all of what takes no compiling, and of the rest the real one."""
    for mode in MODES:
        for precision in ("fp32", "bf16"):
            for masking in MASKINGS:
                if "copies" in mode and precision == "fp32":
                    continue
                if "compiled" not in mode or (precision, masking) == ("bf16", "dual"):
                    yield pytest.param(mode, precision, masking, marks=NEEDS_GPU)


@pytest.mark.parametrize(("mode", "precision", "masking"), list(combinations()))
def test_every_mode_is_the_official_computation(mode, precision, masking):
    workload = Workload(CONFIG, 4, device="cuda")
    reference = Variant("official", tables="repaired")
    against = truth(build("official", reference, workload, masking))
    variant = Variant("ours", precision=precision, lean=True, **MODES[mode])
    found = check(build(mode, variant, workload, masking), against)
    assert found.passed, found.told()


@pytest.mark.parametrize("mode", [pytest.param(m, marks=NEEDS_GPU) for m in MODES if m != "eager"])
def test_every_mode_trains_as_the_eager_one(mode):
    """What five updates changed, relative to the change."""
    workload = Workload(CONFIG, 4, device="cuda")
    expected, got = trained(ours(workload), 5), trained(ours(workload, **MODES[mode]), 5)
    apart = size = 0.0
    for name, value in expected.items():
        before = workload.state[name].to(value.device)
        apart += float((got[name] - value).double().square().sum())
        size += float((value - before).double().square().sum())
    assert size > 0
    assert (apart / size) ** 0.5 < 0.1  # Adam's first steps divide small gradients by themselves
