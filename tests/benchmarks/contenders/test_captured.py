"""The captured step around a stand-in for the graph: real graphs need a GPU."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from benchmarks.common.workload import Workload
from benchmarks.contenders import captured
from benchmarks.contenders.base import UnavailableError, Variant
from benchmarks.contenders.build import build
from benchmarks.contenders.captured import Captured, why_not
from benchmarks.contenders.ours import Ours
from benchmarks.measure.checks import check, truth
from benchmarks.measure.timing import interleaved, timed_step
from videomae_fast import MAEConfig
from videomae_fast.training.graph import WARM_UP

CONFIG = MAEConfig(
    image_size=64, frames=8, width=32, depth=2, heads=2, decoder_width=16, decoder_heads=1,
    decoder_depth=2,
)  # fmt: skip
VARIANT = Variant("ours", lean=True, captured=True)


def test_why_not():
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    assert "CUDA device, not cpu" in why_not(cpu)
    assert why_not(gpu) is None


def test_not_on_a_cpu():
    with pytest.raises(UnavailableError, match="CUDA device, not cpu"):
        build("captured", VARIANT, Workload(CONFIG, 2), "dual")
    with pytest.raises(ValueError, match="captured is an option of ours"):
        build("captured", Variant("official", captured=True), Workload(CONFIG, 2), "dual")


@pytest.fixture
def stand_in(monkeypatch):
    """A graph that launches again what was recorded, and counts it."""
    replays = []

    def capture(run, clear, device):
        for _ in range(WARM_UP):
            run()
        clear()
        run()
        return lambda: (replays.append(1), run()), 123.0

    monkeypatch.setattr(captured, "capture", capture)
    monkeypatch.setattr(captured, "why_not", lambda *_: None)
    return replays


def test_what_is_replayed_is_checked(stand_in):
    workload = Workload(CONFIG, 2)
    against = truth(build("official", Variant("official"), workload, "dual"))
    contender = build("captured", VARIANT, workload, "dual")
    assert isinstance(contender, Captured)
    for _ in range(2):  # the weights were put back
        found = check(contender, against)
        assert found.passed, found.told()
    assert len(stand_in) == 2
    for name, value in contender.model.state_dict().items():
        assert torch.equal(value, workload.state[name]), name
    for state in contender.optimizer.state.values():
        assert not any(value.any() for value in state.values())


def test_a_wrong_replay_is_found(stand_in, monkeypatch):
    workload = Workload(CONFIG, 2)
    against = truth(build("official", Variant("official"), workload, "dual"))
    contender = build("captured", VARIANT, workload, "dual")
    right = Ours.loss
    monkeypatch.setattr(Ours, "loss", lambda self: right(self) * 1.01)
    assert not check(contender, against).passed


def test_a_timed_step_is_one_replay_and_trains(stand_in):
    workload = Workload(CONFIG, 2)
    pair = [
        build("captured", VARIANT, workload, "dual"),
        build("ours", Variant("ours", lean=True), workload, "dual"),
    ]
    for contender in pair:
        for group in contender.optimizer.param_groups:
            group["lr"] = torch.tensor(1e-2) if contender is pair[0] else 1e-2
    interleaved(pair, 2, warmup=0, tell=lambda _: None)
    assert len(stand_in) == 2
    first, second = (c.model.state_dict() for c in pair)
    for name, value in first.items():
        assert not torch.equal(value, workload.state[name])
        torch.testing.assert_close(second[name], value)
    timed_step(pair[0], phases=False)
    assert len(stand_in) == 3
    assert pair[0].step_peak() == 123.0


def test_copies_of_weights_change_no_step(stand_in):
    """bf16 copies are what autocast makes of the weights: the same steps, captured or not."""
    workload = Workload(CONFIG, 2)
    plain = Variant("ours", precision="bf16", lean=True)
    copies = replace(plain, shadow_weights=True)
    trained = []
    for variant in (plain, copies, replace(copies, captured=True)):
        contender = build("ours", variant, workload, "dual")
        against = truth(build("official", Variant("official"), workload, "dual"))
        assert check(contender, against).passed
        for group in contender.optimizer.param_groups:
            group["lr"] = torch.tensor(1e-3) if variant.captured else 1e-3
        for _ in range(3):
            timed_step(contender, phases=False)
        with contender.whole_weights():
            trained.append({k: v.clone() for k, v in contender.model.state_dict().items()})
    for others in trained[1:]:
        # Matmuls in bf16 round by where their memory lies, and AdamW makes steps of the rate of
        # gradients near 0: all that three steps changed, relative to the change
        apart = size = 0.0
        for name, value in trained[0].items():
            assert others[name].dtype == torch.float32
            apart += float((others[name] - value).double().square().sum())
            size += float((value - workload.state[name]).double().square().sum())
        assert size > 0
        assert (apart / size) ** 0.5 < 0.1


def test_copies_are_of_bf16():
    with pytest.raises(ValueError, match="go with precision bf16"):
        build("ours", replace(VARIANT, shadow_weights=True), Workload(CONFIG, 2), "dual")


@pytest.mark.parametrize("captured", [False, True])
def test_fp8_is_near_the_official_step_and_further_than_bf16(stand_in, captured):
    workload = Workload(CONFIG, 2)
    against = truth(build("official", Variant("official"), workload, "dual"))
    plain = Variant("ours", precision="bf16", lean=True, shadow_weights=True, captured=captured)
    bf16, fp8 = (
        check(build("ours", replace(plain, fp8=on), workload, "dual"), against)
        for on in (False, True)
    )
    assert bf16.passed
    assert fp8.passed, fp8.told()
    assert fp8.gradient_error > 1.2 * bf16.gradient_error
    assert fp8.kept_bytes <= bf16.kept_bytes  # nothing in e4m3 waits for backward
    model = build("ours", replace(plain, fp8=True), workload, "dual").model
    assert model.encoder.blocks[0].fp8
    assert not model.decoder.blocks[0].fp8


def test_fp8_is_for_bf16():
    with pytest.raises(ValueError, match="goes with precision bf16"):
        build("ours", replace(VARIANT, precision="fp32", fp8=True), Workload(CONFIG, 2), "dual")
