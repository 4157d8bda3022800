"""Which way a step is launched, why, and whole runs in the captured way, on a CPU with a tape."""

from __future__ import annotations

import os
import signal
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.support.runs import altered, interrupt_after, losses, quiet
from tests.support.tape import TapeRecorder
from videomae_fast.errors import UsageError
from videomae_fast.ops.registry import forced
from videomae_fast.recipes import PretrainConfig
from videomae_fast.tasks.pretraining import Reconstruction, build_model, settings_of
from videomae_fast.training import pretrain, step_mode
from videomae_fast.training.captured import CapturedStep
from videomae_fast.training.checkpoint import read
from videomae_fast.training.deterministic import deterministic_algorithms
from videomae_fast.training.errors import InterruptedRunError, NonFiniteError
from videomae_fast.training.parallel.world import World
from videomae_fast.training.step import TrainStep
from videomae_fast.training.step_mode import Chosen, choose

Make = Callable[..., PretrainConfig]
GPU = torch.device("cuda")


def chosen(config: PretrainConfig, world: World, weights: int = 1000) -> Chosen:
    model = torch.nn.Linear(weights, 1, bias=False, device="meta")
    return choose(Reconstruction(config), model, settings_of(config), world)


@pytest.mark.parametrize(
    ("changed", "size", "device", "why"),
    [
        ({}, 1, "cpu", "a CUDA graph needs a CUDA device, not cpu"),
        ({}, 2, "cuda", "averaged over 2 processes"),
        ({"optimizer": "apex"}, 1, "cuda", "apex's optimizer was never captured"),
        ({"weight_decay_end": 0.5}, 1, "cuda", "takes the weight decay, which changes each step"),
    ],
)
def test_what_cannot_be_captured_is_eager_or_refused(
    tiny: Make, changed: dict[str, Any], size: int, device: str, why: str
) -> None:
    world = World(0, size, torch.device(device))
    found = chosen(tiny(**changed), world)
    assert found.mode == "eager"
    assert why in found.reason
    with pytest.raises(UsageError, match=f"step_mode captured can't be: .*{why}.*; use step_mode"):
        chosen(tiny(**changed, step_mode="captured"), world)


def test_auto_captures_what_a_gpu_would_wait_for(tiny: Make) -> None:
    world = World(0, 1, GPU)
    base = 94_000_000
    small = tiny(videos_per_step=32, samples_per_video=4)
    assert chosen(small, world, base) == Chosen(
        "captured", "128 clips a micro-batch for 94 million parameters keep a GPU waiting for "
        "launches",
    )  # fmt: skip
    giant = 1_030_000_000
    found = chosen(small, world, giant)
    assert found.mode == "eager"
    told = "128 clips a micro-batch for 1030 million parameters keep a GPU b"
    assert found.reason.startswith(told)
    assert chosen(altered(small, accumulation=2), world, giant).mode == "captured"
    assert chosen(altered(small, step_mode="captured"), world, giant).mode == "captured"


def test_auto_says_what_it_took(tiny: Make, tmp_path: Path) -> None:
    said: list[str] = []
    pretrain(tiny(steps=2, warmup_epochs=0), output=tmp_path, log=said.append)
    assert "step mode eager: a CUDA graph needs a CUDA device, not cpu" in said


def test_the_old_spelling_of_compiled(tiny: Make) -> None:
    with pytest.warns(FutureWarning, match="compile is the old spelling of step_mode compiled"):
        assert settings_of(tiny(compile=True)).step_mode == "compiled"
    with pytest.raises(UsageError, match="step_mode is captured: leave compile out"):
        settings_of(tiny(compile=True, step_mode="captured"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert settings_of(tiny(step_mode="compiled")).step_mode == "compiled"


@pytest.fixture
def on_tape(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Captured steps on the CPU, in operations that a tape can run again."""
    made: list[TapeRecorder] = []

    def recorder(device: torch.device, generators: int) -> TapeRecorder:
        made.append(TapeRecorder())
        return made[-1]

    monkeypatch.setattr(step_mode, "CudaRecorder", recorder)
    monkeypatch.setattr(step_mode, "_why_not_captured", lambda *_: None)
    with forced("reference", attention="sdpa", linear="torch"):
        yield made


def test_a_captured_run_stops_and_goes_on_with_the_very_losses(
    tiny: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, on_tape: list[TapeRecorder]
) -> None:
    config = tiny(drop_path=0.3, depth=2, accumulation=2, step_mode="captured")
    pretrain(altered(config, step_mode="eager"), output=tmp_path / "eager", log=quiet)
    pretrain(config, output=tmp_path / "whole", log=quiet)
    assert on_tape[-1].calls.count("replay") == 8
    with monkeypatch.context() as patched:
        interrupt_after(patched, 4, lambda: os.kill(os.getpid(), signal.SIGTERM), CapturedStep)
        with pytest.raises(InterruptedRunError, match="with 5 of 8 steps done"):
            pretrain(config, output=tmp_path / "parts", log=quiet)
    pretrain(config, output=tmp_path / "parts", log=quiet)
    assert losses(tmp_path / "parts") == losses(tmp_path / "whole")
    for whole, eager in zip(losses(tmp_path / "whole"), losses(tmp_path / "eager"), strict=True):
        assert whole == pytest.approx(eager, rel=1e-4)
    one, other = (
        read(tmp_path / name / "checkpoints" / "step-00000008") for name in ("whole", "parts")
    )
    for a, b in ((one.model(), other.model()), (one.optimizer(), other.optimizer())):
        assert all(torch.equal(a[name], b[name]) for name in a)
    # What a captured run saved, an eager one goes on from
    eager = read(tmp_path / "eager" / "checkpoints" / "step-00000008")
    assert eager.model().keys() == one.model().keys()
    assert eager.optimizer().keys() == one.optimizer().keys()


@pytest.mark.usefixtures("on_tape")
def test_a_captured_run_stops_at_a_nan_with_the_state_before_it(
    tiny: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny(log_every=4, step_mode="captured")
    update, count = CapturedStep.update, [0]

    def poisoned(self: CapturedStep[Any], rate: float) -> torch.Tensor:
        if count[0] == 5:
            with torch.no_grad():
                self.model.decoder.head.bias[0] = float("inf")
        count[0] += 1
        return update(self, rate)

    monkeypatch.setattr(CapturedStep, "update", poisoned)
    with pytest.raises(NonFiniteError, match=r"step 5: .*decoder.head.bias \(1 of "):
        pretrain(config, output=tmp_path, log=quiet)
    assert [step for step, *_ in losses(tmp_path)] == [0, 1, 2, 3, 4, 5]


def test_deterministic_holds_for_the_run_alone(
    tiny: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    enabled: list[bool] = []
    update = TrainStep.update

    def looked(self: TrainStep[Any], rate: float) -> torch.Tensor:
        enabled.append(torch.are_deterministic_algorithms_enabled())
        return update(self, rate)

    monkeypatch.setattr(TrainStep, "update", looked)
    config = tiny(deterministic=True, steps=2, warmup_epochs=0)
    pretrain(config, output=tmp_path, log=quiet)
    assert enabled == [True, True]
    assert not torch.are_deterministic_algorithms_enabled()
    assert torch.utils.deterministic.fill_uninitialized_memory


def test_what_cannot_be_deterministic_is_refused(
    tiny: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UsageError, match="can't be promised with step_mode compiled"):
        chosen(tiny(deterministic=True, step_mode="compiled"), World(0, 1, GPU))
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":0:0")
    with (
        pytest.raises(UsageError, match=r"CUBLAS_WORKSPACE_CONFIG is ':0:0', with which matmuls"),
        deterministic_algorithms(GPU),
    ):
        pass
    assert not torch.are_deterministic_algorithms_enabled()


def test_recompute_that_would_do_nothing_is_refused(tiny: Make) -> None:
    with pytest.raises(UsageError, match="recompute and activation_checkpointing exclude each"):
        settings_of(tiny(recompute=True, activation_checkpointing=True))
    model = build_model(tiny(recompute=True))
    assert model.encoder.blocks[0].recompute
    assert not build_model(tiny()).encoder.blocks[0].recompute
