"""How a step is launched: eager, compiled or captured, and what "auto" makes of that."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from torch import nn

from videomae_fast.errors import UsageError
from videomae_fast.ops.quantize_rows import why_no_e4m3
from videomae_fast.training.captured import CapturedStep
from videomae_fast.training.checkpoint import Log
from videomae_fast.training.graph import CudaRecorder
from videomae_fast.training.parallel.layout import choose_layout
from videomae_fast.training.parallel.world import World, videos_per_micro_batch
from videomae_fast.training.precision import why_bf16_is_slow
from videomae_fast.training.step import TrainStep, uses_bf16
from videomae_fast.training.task import Batch, Objective, Settings

CAPTURED_UP_TO: Final = 7e10
"""Parameters x clips of a micro-batch up to which "auto" captures: ViT-g at 64 clips. On an H100
whose host took 0.1 ms a launch, captured steps were 1.8 times (ViT-B, 128 clips) and 4.1 times
(ViT-g, 16) as fast as eager ones, and ViT-g's kernels for 64 clips took about as long as their
launches (docs/performance-log.md). Those of larger steps take longer."""


class Chosen(NamedTuple):
    """A step mode, and why it is that one."""

    mode: str
    reason: str


def make_step(
    objective: Objective[Batch], model: nn.Module, settings: Settings, world: World, log: Log
) -> TrainStep[Batch]:
    """The step of a run in the mode that its settings ask for.

    Args:
        model: on the CPU, weights loaded.
        log: is told what "auto" chose, and why.

    Raises:
        UsageError: the mode that is asked for can't be here.
    """
    if settings.shadow_weights:
        _check_shadows(settings, world)
    if settings.fp8:
        _check_fp8(settings, world)
    chosen = choose(objective, model, settings, world)
    slow = why_bf16_is_slow() if world.device.type == "cpu" else None
    if slow is not None and uses_bf16(settings, world.device):
        log(f"precision bf16 will be slower than fp32: {slow}")
    if settings.step_mode == "auto":
        log(f"step mode {chosen.mode}: {chosen.reason}")
    if chosen.mode == "captured":
        recorder = CudaRecorder(world.device, settings.accumulation)
        otherwise = log if settings.step_mode == "auto" else None
        return CapturedStep(objective, model, settings, world, recorder, otherwise)
    compiled, bf16 = chosen.mode == "compiled", uses_bf16(settings, world.device)
    layout = choose_layout(settings.shard, settings.reshard, model, world, bf16=bf16, log=log)
    return TrainStep(objective, model, settings, world, compiled=compiled, layout=layout)


def choose(objective: Objective[Any], model: nn.Module, settings: Settings, world: World) -> Chosen:
    """The step mode, "auto" resolved.

    Raises:
        UsageError: the mode that is asked for can't be here.
    """
    asked = settings.step_mode
    why_not = _why_not_captured(objective, world)
    if asked == "captured" and why_not is not None:
        raise UsageError(f"step_mode captured can't be: {why_not}; use step_mode eager or auto")
    if asked == "compiled" and settings.deterministic:
        raise UsageError(
            "deterministic can't be promised with step_mode compiled, which chooses kernels by "
            "timing them: use step_mode eager or captured"
        )
    if asked != "auto":
        return Chosen(asked, "asked for")
    if why_not is not None:
        return Chosen("eager", why_not)
    videos = videos_per_micro_batch(settings.videos_per_step, world.size, settings.accumulation)
    clips = videos * settings.clips_per_video
    weights = sum(parameter.numel() for parameter in model.parameters())
    of = f"{clips} clips a micro-batch for {weights / 1e6:.0f} million parameters"
    if clips * weights <= CAPTURED_UP_TO:
        return Chosen("captured", f"{of} keep a GPU waiting for launches")
    return Chosen("eager", f"{of} keep a GPU busy for longer than its launches take")


def _check_shadows(settings: Settings, world: World) -> None:
    """Raises UsageError where copies of weights in bf16 would change more than who casts."""
    if not uses_bf16(settings, world.device):
        raise UsageError(
            f"shadow_weights are bf16 copies, and this run computes in fp32 (precision "
            f"{settings.precision}, {world.device.type}): use precision bf16, or leave them out"
        )
    if world.size > 1 or settings.accumulation > 1:
        what = f"{world.size} processes" if world.size > 1 else "micro-batches of a step"
        raise UsageError(
            f"shadow_weights would add up the gradients of {what} in bf16: leave them out, or use "
            "one process and accumulation 1"
        )


def _check_fp8(settings: Settings, world: World) -> None:
    """Raises UsageError where there is no fp8, or nothing that it would take the place of."""
    if not uses_bf16(settings, world.device):
        raise UsageError(
            "fp8 takes the place of bf16 in some matmuls, and this run computes in fp32 "
            f"(precision {settings.precision}, {world.device.type}): use precision bf16, or leave "
            "fp8 out"
        )
    if world.device.type == "cuda" and (reason := why_no_e4m3(world.device)) is not None:
        raise UsageError(f"fp8 can't be here: {reason}; leave it out")


def _why_not_captured(objective: Objective[Any], world: World) -> str | None:
    """Why a step can't be one CUDA graph, or None."""
    if world.device.type != "cuda":
        return f"a CUDA graph needs a CUDA device, not {world.device}"
    if world.size > 1:
        return f"gradients are averaged over {world.size} processes, which is not captured"
    return objective.why_not_captured()
