"""Steps of a tiny model in several processes, in every layout; ``python -m`` under torchrun.

Writes, as JSON, what each variant's steps gave. One launch makes all variants, since starting
processes takes longer than their steps.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final
from unittest.mock import patch

import torch
import torch.distributed as dist
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.scale.layouts import (
    BASE,
    LAYOUTS,
    MORE,
    batches,
    config_of,
    new_step,
    split,
    trained,
    variants,
    weights,
)
from videomae_fast.data import ClipBatch
from videomae_fast.models.transformer import set_sharded
from videomae_fast.training.errors import ReplicaError
from videomae_fast.training.optimizer import optimizer_state
from videomae_fast.training.parallel.fsdp import gathered, local, whole
from videomae_fast.training.parallel.replicas import check_replicas
from videomae_fast.training.parallel.world import World
from videomae_fast.training.step import TrainStep

STEPS: Final = 6
"""With clips that can't be read in some; the record of ``python -m benchmarks equality`` has 20."""
FEW: Final = 5
COMPILED: Final[dict[str, Any]] = {"depth": 1, "decoder_depth": 1, "recompute": True}
"""Two graphs: compiling takes longer than all steps."""


def held(step: TrainStep[ClipBatch]) -> int:
    """Bytes of this process's parts of weights, gradients and moments."""
    parameters = list(step.model.parameters())
    tensors = [*parameters, *(p.grad for p in parameters if p.grad is not None)]
    tensors += [s[k] for s in step.optimizer.state.values() for k in ("exp_avg", "exp_avg_sq")]
    return sum(local(t).numel() * t.element_size() for t in tensors)


class Collectives(TorchDispatchMode):
    """Counts them, and the bytes that this process sends in them."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()
        self.sent = 0.0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.namespace == "c10d":
            name = func.name().removeprefix("c10d::")
            self.counts[name] += 1
            self.sent += _sent(name, args)
        return func(*args, **(kwargs or {}))


def _sent(name: str, args: Any) -> float:
    if name in ("_allgather_base_", "_reduce_scatter_base_"):  # to a tensor, from a tensor
        sizes = [tensor.numel() * tensor.element_size() for tensor in args[:2]]
        return max(sizes) - min(sizes)
    assert name == "allreduce_", name
    size = dist.ProcessGroup.unbox(args[1]).size()
    return 2 * (size - 1) / size * sum(t.numel() * t.element_size() for t in args[0])


def collectives(step: TrainStep[ClipBatch], world: World) -> dict[str, Any]:
    """Those of a step, once all is set up."""
    trained(step, world, 2)
    with Collectives() as counting:
        trained(step, world, 1)
    return {"counts": counting.counts, "sent": counting.sent}


def evaluated(step: TrainStep[ClipBatch], world: World) -> float:
    """A forward pass that one process alone makes."""
    with gathered(step.model), torch.no_grad():
        if not world.is_main:
            return 0.0
        part = split(batches(1)[0], 2)[1]
        inputs = step.objective.inputs(part, None)  # type: ignore[arg-type]
        return float(step.objective.loss(step.model, inputs, scale=1.0).total)


def mutation(kind: str, world: World) -> Any:
    """What a fault makes of the steps: numbers, or the error."""
    step = new_step(config_of(**LAYOUTS["all, yes"]), world)
    if kind == "no clone":
        set_sharded(step.model, False)
    else:  # than the one that the update corrects
        forward = step.objective.loss
        step.objective.loss = lambda *args, scale: forward(*args, scale=2 * scale)  # type: ignore[method-assign]
    try:
        return trained(step, world, 3)
    except (ValueError, RuntimeError) as error:
        return f"{type(error).__name__}: {error}"


def replicas(layout: Mapping[str, Any], world: World) -> list[str]:
    """What is said of copies before one value of the last process is another, and after."""
    step = new_step(config_of(**layout), world)
    trained(step, world, 2)
    said = []
    for _ in range(2):
        try:
            check_replicas(step.model, step.layout, world, 2)
            said.append("")
        except ReplicaError as error:
            said.append(str(error))
        if world.rank == world.size - 1:
            weight = dict(step.model.named_parameters())["encoder.blocks.1.mlp.fc1.weight"]
            local(weight.detach()).view(torch.int32)[0, 0] ^= 1
    return said


def main(words: list[str]) -> None:
    path, kind = Path(words[0]), words[1]
    torch.set_num_threads(1)
    world = World.start("cpu")
    if kind != "all":
        found: Mapping[str, Any] = {kind: mutation(kind, world)}
    else:
        found = _everything(world)
    if world.is_main:
        path.write_text(json.dumps(found))
    world.close(together=True)


def _everything(world: World) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, options in variants(world.size).items():
        step = new_step(config_of(**options), world)
        steps = trained(step, world, FEW if name in MORE else STEPS)
        one: dict[str, Any] = {"steps": steps, "evaluated": evaluated(step, world)}
        one["weights"] = weights(step)
        one["moments"] = [
            float(whole(t.detach()).double().norm())
            for t in optimizer_state(step.model, step.optimizer).values()
        ]
        found[name] = one
    if world.size < 4:
        found |= _others(world)
    else:
        for name in ("ddp", "two, yes"):
            found[f"replicas; {name}"] = replicas(LAYOUTS[name], world)
    found["wrong divisor"] = mutation("wrong divisor", world)
    for name, layout in LAYOUTS.items() if world.size > 1 else ():
        if name.startswith("two") and world.size == 2:
            continue
        step = new_step(config_of(**layout), world)
        said = collectives(step, world)
        trained_once = split(split(batches(1)[0], world.size)[world.rank], 1)[0]
        step.forward_backward(trained_once, step=0, micro=0)
        said["held"] = world.gather(held(step))
        said["whole"] = sum(p.numel() for p in step.model.parameters())
        found[f"collectives; {name}"] = said
    return found


def _others(world: World) -> dict[str, Any]:
    """Sharded blocks that are compiled, and those in bf16 and fp8, in two processes; what they are
    to equal in one."""
    sharded = LAYOUTS["ddp" if world.size == 1 else "all, yes"]
    mode = "eager" if world.size == 1 else "compiled"
    precision = "fp32" if world.size == 1 else "bf16"
    with patch("torch.compile", partial(torch.compile, backend="aot_eager")):  # no C++ compiler
        compiled = new_step(config_of(**sharded, **COMPILED, step_mode=mode), world)
        found = {"compiled": trained(compiled, world, FEW)}
    with patch("videomae_fast.models.fp8.MINIMUM_WIDTH", BASE["width"]):
        narrow = new_step(config_of(**sharded, fp8=True), world)
    found["fp8"] = trained(narrow, world, FEW)
    lowered = new_step(config_of(**sharded, precision=precision), world)
    found["bf16"] = trained(lowered, world, FEW)
    kinds = {str(p.dtype) for p in lowered.model.parameters()}
    kinds |= {str(m.dtype) for m in optimizer_state(lowered.model, lowered.optimizer).values()}
    assert kinds == {"torch.float32"}, "weights and moments stay so"
    return found


if __name__ == "__main__":
    main(sys.argv[1:])
    assert not dist.is_initialized()
