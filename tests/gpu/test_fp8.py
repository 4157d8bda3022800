"""fp8 on a GPU: torch's products against the emulated ones, and steps in every mode."""

from __future__ import annotations

import pytest
import torch

from benchmarks.common.workload import Workload
from benchmarks.contenders.base import Contender, Variant
from benchmarks.contenders.build import build
from benchmarks.measure.checks import check, truth
from benchmarks.measure.timing import timed_step
from tests.support.devices import NEEDS_GPU
from videomae_fast import MAEConfig
from videomae_fast.ops import fp8_linear

pytestmark = NEEDS_GPU
CONFIG = MAEConfig(
    image_size=224, width=256, depth=2, heads=4, decoder_width=128, decoder_heads=2, decoder_depth=2
)
MODES = {
    "eager": {},
    "compiled": {"compiled": True},
    "captured": {"captured": True},
    "captured, copies of weights": {"captured": True, "shadow_weights": True},
    "recomputing": {"recompute": True},
}


@pytest.fixture(autouse=True)
def has_e4m3() -> None:
    if torch.cuda.get_device_capability() < (8, 9):
        pytest.skip("this GPU has no e4m3")


@pytest.mark.parametrize("rows", [(1,), (3, 77), (20_480,)], ids=str)
@pytest.mark.parametrize("sides", [(48, 32), (1408, 6144), (6144, 1408)], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_torchs_products_are_the_emulated_ones(rows, sides, dtype):
    """Sums in fewer bits than fp32's, but for which both are the same numbers."""
    torch.manual_seed(0)
    outer, inner = sides
    x = torch.randn(*rows, inner, device="cuda", dtype=torch.bfloat16, requires_grad=True)
    weight = torch.randn(outer, inner, device="cuda", dtype=dtype, requires_grad=True)
    bias = torch.randn(outer, device="cuda", dtype=torch.bfloat16)
    grad = torch.randn(*rows, outer, device="cuda", dtype=torch.bfloat16)
    found = []
    for impl in ("scaled_mm", "reference"):
        out = fp8_linear(x, weight, bias, impl=impl)
        found.append([out, *torch.autograd.grad(out, (x, weight), grad)])
    for one, other in zip(*found, strict=True):
        assert (one.dtype, one.shape) == (other.dtype, other.shape)
        assert (one.double() - other.double()).norm() < 1e-2 * other.double().norm()


def ours(workload: Workload, **options) -> Contender:
    variant = Variant("ours", precision="bf16", lean=True, fp8=True, **options)
    return build("ours", variant, workload, "dual")


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_is_near_the_official_computation(mode):
    workload = Workload(CONFIG, 4, device="cuda")
    reference = build("official", Variant("official", tables="repaired"), workload, "dual")
    found = check(ours(workload, **MODES[mode]), truth(reference))
    assert found.passed, found.told()


def test_training_twice_gives_the_same_bits():
    workload = Workload(CONFIG, 4, device="cuda")
    states = []
    for _ in range(2):
        contender = ours(workload, op_backends={"attention": "triton"})
        for _ in range(5):
            timed_step(contender, phases=False)
        states.append({k: v.clone() for k, v in contender.model.state_dict().items()})
    assert [n for n, value in states[0].items() if not torch.equal(value, states[1][n])] == []
