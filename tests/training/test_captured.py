"""The captured step around a tape of operations: real graphs need a GPU (tests/gpu)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.support.steps import CPU, NoRead, batch, new_step, split
from tests.support.tape import TapeRecorder
from videomae_fast.data import ClipBatch
from videomae_fast.errors import BackendUnavailableError, UsageError
from videomae_fast.ops.registry import forced
from videomae_fast.recipes import PretrainConfig
from videomae_fast.tasks.pretraining import Reconstruction, build_model, settings_of
from videomae_fast.training.captured import CapturedStep
from videomae_fast.training.step import TrainStep

Make = Callable[..., PretrainConfig]
RATES = (1e-3, 2e-3, 5e-4, 1e-3)


@pytest.fixture(autouse=True)
def plain_operations() -> Any:
    """References are made of torch's operations, which a tape sees and can run again."""
    with forced("reference", attention="sdpa", linear="torch"):
        yield


def captured(config: PretrainConfig) -> tuple[CapturedStep[ClipBatch], TapeRecorder]:
    recorder = TapeRecorder()
    parts = Reconstruction(config), build_model(config), settings_of(config), CPU
    return CapturedStep(*parts, recorder), recorder


def rows(step: TrainStep[ClipBatch], batches: list[ClipBatch]) -> list[list[float]]:
    found = []
    for number, (whole, rate) in enumerate(zip(batches, RATES, strict=False)):
        for micro, part in enumerate(split(whole, step.settings.accumulation)):
            step.forward_backward(part, step=number, micro=micro)
        found.append(step.update(rate))
    return [row.tolist() for row in found]


def state(step: TrainStep[ClipBatch]) -> list[Tensor]:
    moments = [t for kept in step.optimizer.state.values() for t in kept.values()]
    return [*step.model.state_dict().values(), *moments]


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"accumulation": 2, "drop_path": 0.5, "depth": 3},
        {"decoder_mask": "random", "clip_grad": 0.05},
        {"activation_checkpointing": True, "precision": "bf16"},
        {"activation_checkpointing": True, "drop_path": 0.5, "depth": 3},
        {"recompute": True},
    ],
    ids=lambda changed: ", ".join(changed) or "plain",
)
def test_a_captured_step_is_the_eager_one(tiny: Make, changed: dict[str, Any]) -> None:
    config = tiny(**changed)
    batches = [batch(8, 1, failed=(1,)), batch(8, 2), batch(8, 3, failed=tuple(range(8))),
               batch(8, 4)]  # fmt: skip
    eager, (step, recorder) = new_step(config), captured(config)
    expected, found = rows(eager, batches), rows(step, batches)
    # A rate on the device rounds updates otherwise, and so some weights' copies in bf16
    near, small = (1e-3, 5e-3) if changed.get("precision") == "bf16" else (1e-6, 1e-6)
    assert found == [pytest.approx(row, rel=near, nan_ok=True) for row in expected]
    for mine, theirs in zip(state(step), state(eager), strict=True):
        # Matmuls round by where their memory lies, and AdamW makes steps of the rate (1e-3)
        # of gradients near 0.
        torch.testing.assert_close(mine, theirs, rtol=10 * near, atol=small)
    assert recorder.calls.count("record") == 1
    assert recorder.calls.count("replay") == len(batches), "one launch per step"


def test_the_order_of_calls(tiny: Make) -> None:
    step, recorder = captured(tiny(accumulation=2))
    step.objective.draws = True  # type: ignore[misc]  # as with dropout before a head
    rows(step, [batch(8, 1), batch(8, 2)])
    first = ["seed 0", "seed 1", "run", "run", "record", "replay"]
    assert recorder.calls == [*first, "seed 0", "seed 1", "replay"]
    assert recorder.tape.names.count("_fused_adamw_") == 2  # of two groups


def test_recording_leaves_everything_as_it_was(tiny: Make) -> None:
    step, _ = captured(tiny())
    before = [tensor.clone() for tensor in state(step)]
    step.forward_backward(batch(8, 1), step=0, micro=0)
    step._replay = step._record()
    for tensor, old in zip(state(step), before, strict=True):
        # The tape runs what it records, a CUDA graph does not: that is the one step it is behind
        assert torch.equal(tensor, old)


def test_weights_stay_those_before_the_first_bad_step(tiny: Make) -> None:
    step, _ = captured(tiny())
    assert rows(step, [batch(8, 1)])[0][-1] == 0
    with torch.no_grad():  # a replay knows no other Python to put a poison into
        weight = step.model.decoder.head.bias
        weight[0] = float("nan")
    before = [tensor.clone() for tensor in state(step)]
    for number in (1, 2):
        step.forward_backward(batch(8, number), step=number, micro=0)
        assert step.update(1e-3)[-1] == 1
    for tensor, old in zip(state(step), before, strict=True):
        assert torch.equal(tensor, old) or torch.isnan(old).any()


def test_a_step_reads_nothing_from_the_device(tiny: Make) -> None:
    step, _ = captured(tiny(accumulation=2, drop_path=0.2, depth=2))
    for number in range(2):
        parts = split(batch(8, number), 2)
        for micro, part in enumerate(parts):
            with NoRead():
                step.forward_backward(part, step=number, micro=micro)
        if number:  # recording has a mode of its own
            with NoRead():
                step.update(1e-3)
        else:
            step.update(1e-3)


def test_other_shapes_are_refused_in_words(tiny: Make) -> None:
    step, _ = captured(tiny())
    rows(step, [batch(8, 1)])
    with pytest.raises(UsageError, match=r"frames was \[8, 4, 32, 32, 3\] and is \[4, 4, "):
        step.forward_backward(batch(4, 2), step=1, micro=0)


class Refusing(TapeRecorder):
    """A recorder whose recording fails after its warm-up."""

    def record(self, run: Callable[[], None], clear: Callable[[], None]) -> Callable[[], None]:
        run()
        raise BackendUnavailableError("the step can't be recorded as a CUDA graph: operation not p")


def test_auto_goes_on_without_a_recording_that_fails_and_says_so(tiny: Make) -> None:
    config, batches = tiny(drop_path=0.5, depth=2, accumulation=2), [batch(8, 1), batch(8, 2)]
    said: list[str] = []
    parts = Reconstruction(config), build_model(config), settings_of(config), CPU
    step = CapturedStep(*parts, Refusing(), said.append)
    assert rows(step, batches) == [
        pytest.approx(r, rel=1e-6) for r in rows(new_step(config), batches)
    ]
    assert said == [
        "step mode eager from here on: the step can't be recorded as a CUDA graph: operation not p"
    ]
    asked = CapturedStep(*parts, Refusing())
    with pytest.raises(BackendUnavailableError, match="can't be recorded"):
        rows(asked, batches)
