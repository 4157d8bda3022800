"""Steps of a tiny model in several processes, in every layout: what a rank does.

One process alone keeps what each variant came to; several compare theirs with it where they are,
and write, as JSON, how far they are off.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any, Final
from unittest.mock import patch

import pytest
import torch
import torch.distributed as dist
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.scale.layouts import (
    BASE,
    LAYOUTS,
    MASKS,
    MORE,
    RATE,
    batches,
    config_of,
    joined,
    laid_out,
    new_step,
    reference,
    split,
    trained,
    variants,
)
from tests.support.launches import Host
from videomae_fast.data import ClipBatch
from videomae_fast.models.transformer import set_sharded
from videomae_fast.tasks.pretraining import settings_of
from videomae_fast.training.errors import ReplicaError
from videomae_fast.training.optimizer import optimizer_state
from videomae_fast.training.optimizer.parts import PartsUpdate
from videomae_fast.training.optimizer.update import TorchUpdate
from videomae_fast.training.parallel.fsdp import gathered, local
from videomae_fast.training.parallel.layout import layout_of
from videomae_fast.training.parallel.replicas import check_replicas
from videomae_fast.training.parallel.world import World
from videomae_fast.training.step import TrainStep

STEPS: Final = 20
FEW: Final = 6
"""Where a layout is there for one thing alone; clips that can't be read are in some of them."""
SOME: Final[dict[int, dict[str, dict[str, Any]]]] = {
    1: {f"ddp; {masks}; 1": options for masks, options in MASKS.items()},
    2: {},
    3: {
        "ddp; random; 2": {**MASKS["random"], "accumulation": 2},
        "all, yes; random; 1": {**LAYOUTS["all, yes"], **MASKS["random"]},
        "all, no; dual; 2": {**LAYOUTS["all, no"], "accumulation": 2},
    },
    8: {
        "node, yes; random; 1": {"shard": "node", "reshard": "yes", **MASKS["random"]},
        "two, no; dual; 1": LAYOUTS["two, no"],
    },
}
"""Of processes that eight clips don't divide by; and of copies on two nodes, or four on as many."""
MOMENTS: Final = ("exp_avg.", "exp_avg_sq.")
COMPILED: Final[dict[str, Any]] = {"depth": 1, "decoder_depth": 1, "recompute": True}
"""Two graphs: compiling takes longer than all steps."""


Ran = Callable[[int], dict[str, Any]]


def runs(host: Host, folder: Path, target: str) -> Ran:
    """What a target of this file writes in a number of processes, once each, one process first;
    judged by that, as gloo may abort at the interpreter's end (pytorch issue 179291)."""
    alone = str(folder / "alone.pt")

    @cache
    def ran(processes: int) -> dict[str, Any]:
        if processes > 1:
            ran(1)
        path, log = folder / f"{processes}.json", folder / f"{processes}.log"
        nodes = [4, 4] if processes == 8 else [processes]
        words = [str(path), alone]
        for run in host.meeting(nodes, f"tests.support.sharded:{target}", words, log):
            run.finish(None)
        assert path.exists(), log.read_text()[-4000:]
        found: dict[str, Any] = json.loads(path.read_text())
        return found

    return ran


def check_equal(found: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    """Losses and norms of as many steps as there are, and the states after them."""
    for (loss, norm), (loss_of_one, norm_of_one) in zip(
        found["steps"], expected["steps"], strict=False
    ):
        assert loss == pytest.approx(loss_of_one, rel=1e-6)
        assert norm == pytest.approx(norm_of_one, rel=1e-5)
    # Adam divides gradients near 0 by gradients near 0
    assert found["weights"] <= 1e-2 * RATE
    assert found["moments"] <= 1e-4


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


def updates(layout: Mapping[str, Any], world: World) -> dict[str, float]:
    """How far steps that update parts are off those that torch's optimizer makes of DTensors."""
    ours, torchs = (new_step(config_of(**layout), world) for _ in range(2))
    assert isinstance(ours._update, PartsUpdate)
    torchs._update = TorchUpdate(torchs.optimizer, None)
    pairs = zip(trained(ours, world, 3), trained(torchs, world, 3), strict=True)
    off = max(abs(own / other - 1) for pair in pairs for own, other in zip(*pair, strict=True))
    return {"steps": off, **compared(states(ours), states(torchs))}


def states(step: TrainStep[ClipBatch]) -> dict[str, Tensor]:
    """All weights, and all moments; every process calls it."""
    moments = optimizer_state(step.model, step.optimizer)
    return joined({**step.model.state_dict(), **moments}, step)


def compared(own: Mapping[str, Tensor], alone: Mapping[str, Tensor]) -> dict[str, Any]:
    """How far weights are off at most, and moments, of their largest value."""
    assert own.keys() == alone.keys()
    off = {name: float((own[name] - other).abs().max()) for name, other in alone.items()}
    least = {n: max(float(alone[n].abs().max()), 1e-9) for n in off if n.startswith(MOMENTS)}
    weights = [value for name, value in off.items() if not name.startswith(("step.", *MOMENTS))]
    return {"weights": max(weights), "moments": max(off[n] / size for n, size in least.items())}


def every_layout(words: list[str]) -> None:
    """words: the file for what was found; that of one process alone, which writes it."""
    path, alone = Path(words[0]), Path(words[1])
    torch.set_num_threads(1)
    world = World.start("cpu")
    found = _trained(variants(world.size), world, alone, STEPS)
    if world.size == 4:
        for name in ("ddp", "two, yes"):
            found[f"replicas; {name}"] = replicas(LAYOUTS[name], world)
    if world.size == 2:
        found["updates"] = updates(LAYOUTS["all, no"], world)
    found["wrong divisor"] = mutation("wrong divisor", world)
    if world.size > 1:
        for name, layout in laid_out(world.size).items():
            found[f"collectives; {name}"] = _counted(new_step(config_of(**layout), world), world)
    _write(path, found, world)


def some_layout(words: list[str]) -> None:
    """A few steps of layouts that need more processes, or of a number that divides nothing, and of
    other computations in two. words: as for all layouts."""
    torch.set_num_threads(1)
    world = World.start("cpu")
    found = _trained(SOME[world.size], world, Path(words[1]), FEW)
    for name, options in SOME[world.size].items():
        settings = settings_of(config_of(**options))
        found[name]["parts"] = layout_of(settings.shard, world)
    if world.size < 3:
        found |= _others(world)
    _write(Path(words[0]), found, world)


def mutated(words: list[str]) -> None:
    """words: the file for what was found; the fault."""
    torch.set_num_threads(1)
    world = World.start("cpu")
    _write(Path(words[0]), {words[1]: mutation(words[1], world)}, world)


def _write(path: Path, found: Mapping[str, Any], world: World) -> None:
    if world.is_main:
        path.write_text(json.dumps(found))
    world.close(together=True)


def _trained(
    every: Mapping[str, Mapping[str, Any]], world: World, alone: Path, number: int
) -> dict[str, Any]:
    """What each variant's steps gave, and how far its states are off at the end.

    alone: states of one process; such a one writes it, by what came first of the same masks.
    """
    kept: dict[str, Any] = {} if world.size == 1 else torch.load(alone, weights_only=True)
    found = {}
    for name, options in every.items():
        step, last = new_step(config_of(**options), world), FEW if name in MORE else number
        steps = trained(step, world, FEW)
        if world.size == 1:
            kept.setdefault(f"{reference(name)}; {FEW}", states(step))
        steps += trained(step, world, last - FEW, first=FEW)
        own, of = states(step), f"{reference(name)}; {last}"
        if world.size == 1:
            kept.setdefault(of, own)
        one = {"steps": steps, "evaluated": evaluated(step, world)}
        found[name] = {**one, **compared(own, kept[of])}
    if world.size == 1:
        torch.save(kept, alone)
    return found


def _counted(step: TrainStep[ClipBatch], world: World) -> dict[str, Any]:
    """Collectives and bytes of a step in a layout, and what each process holds."""
    said = collectives(step, world)
    part = split(split(batches(1)[0], world.size)[world.rank], 1)[0]
    step.forward_backward(part, step=0, micro=0)
    said["held"] = world.gather(held(step))
    said["whole"] = sum(p.numel() for p in step.model.parameters())
    return said


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
