"""What every study of training steps does: build, compare with the reference, time in turns.

A contender that is not shown to be the same computation is not timed; one that can't run here, or
does not fit into memory or time, is named with its reason, and the others go on.
"""

from __future__ import annotations

import gc
import traceback
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch

from benchmarks.common.card import clocks
from benchmarks.common.workload import Masking, Workload
from benchmarks.contenders import accelerated
from benchmarks.contenders.base import Contender, Precision, UnavailableError, Variant
from benchmarks.contenders.build import build
from benchmarks.measure.checks import Check, Truth, check, truth
from benchmarks.measure.timing import NO_LIMIT, Budget, Summary, interleaved, timed_step, times
from benchmarks.official.savings import multiply_adds
from videomae_fast.models.flops import flops

Tell = Callable[[str], None]
Keep = Callable[[dict[str, Any]], None]
# Why a contender may be missing, and the others go on
MISSING = (ModuleNotFoundError, UnavailableError, torch.cuda.OutOfMemoryError)
CRASHED = "crashed: "


@dataclass(frozen=True)
class Case:
    """A contender to be built: its name in the record, how, and with which masks."""

    name: str
    variant: Variant
    masking: Masking

    def in_precision(self, precision: Precision) -> Case:
        """The same case with matmuls of this precision."""
        return replace(self, variant=replace(self.variant, precision=precision))


def reference(workload: Workload, masking: Masking) -> Truth:
    """fp32 loss and gradients of the transcription; checkpointing lets it fit at any batch."""
    variant = Variant("official", tables="repaired", checkpointing=True)
    return truth(build("official in fp32", variant, workload, masking))


def one_by_one(
    workload: Workload,
    cases: Sequence[Case],
    *,
    repeats: int,
    warmup: int,
    budget: Budget = NO_LIMIT,
    tell: Tell = print,
    keep: Keep = lambda _: None,
) -> dict[str, Any]:
    """:func:`measure`, each contender built when the one before is gone: a GPU may hold only one.

    They are not timed in turns, so a card that gets slower favours the first. A fixed product is
    timed before and after each contender: the rows say by "yardstick" what the card was like. Each
    gets an equal share of the time that is left.
    """
    device = torch.device(workload.device)
    found: dict[str, Any] = {"workload": workload.describe(), "checks": [], "runs": []}
    found["failed"] = {case.masking: {} for case in cases}
    against: dict[str, Truth] = {}

    def joined(one: dict[str, Any]) -> dict[str, Any]:
        lists = {name: found[name] + one[name] for name in ("checks", "runs")}
        reasons = {m: {**why, **one["failed"].get(m, {})} for m, why in found["failed"].items()}
        return {**found, **lists, "failed": reasons}

    for i, case in enumerate(cases):
        before = yardstick(device)
        one = measure(
            workload,
            [case],
            repeats=repeats,
            warmup=warmup,
            budget=budget.share(len(cases) - i),
            tell=tell,
            keep=lambda part: keep(joined(part)),
            against=against,
        )
        if case.variant.compiled:
            torch.compiler.reset()  # it holds what it compiled, and that its weights
        _free()
        for run in one["runs"]:
            run["yardstick"] = {"before": before, "after": yardstick(device)}
            if device.type == "cuda":
                run["yardstick"]["clocks"] = clocks()
        found = joined(one)
        keep(found)
    return found


def yardstick(device: torch.device) -> float:
    """Median seconds of a fixed matmul."""
    side, dtype = (4096, torch.bfloat16) if device.type == "cuda" else (256, torch.float32)
    a, b = (torch.ones(side, side, dtype=dtype, device=device).normal_() for _ in range(2))
    return Summary.of(times(lambda: a @ b, device, 10, 2)).median


def measure(
    workload: Workload,
    cases: Sequence[Case],
    *,
    repeats: int,
    warmup: int,
    budget: Budget = NO_LIMIT,
    tell: Tell = print,
    keep: Keep = lambda _: None,
    against: dict[str, Truth] | None = None,
) -> dict[str, Any]:
    """Checks and times of the cases, interleaved.

    One that crashes (a compiler's error, say) is in "failed" as such, and the others go on.

    Args:
        keep: takes what would be returned, as far as it is known, after the checks and after each
            round: a command that is killed then leaves something.
        against: references by masking, where there are some from a call before; new ones are added.

    Returns:
        "workload", "checks", "runs" and "failed" (by masking and name), as the tables take them.
        Only those whose check passed are timed; one that did not is in "failed" too.
    """
    if any(case.variant.compiled for case in cases):
        _fresh_compiler()
    failed: dict[str, dict[str, str]] = {case.masking: {} for case in cases}
    given = against is not None
    against = against if against is not None else {}
    contenders: list[Contender] = []
    checks: list[Check] = []

    def leave_out(masking: str, name: str, why: str) -> None:
        failed[masking][name] = why
        tell(f"{masking}, {name}: {why}{budget.told()}")

    for case in cases:
        if budget.left() <= 0:
            leave_out(case.masking, case.name, "no time was left")
            continue
        try:
            if case.masking not in against:
                against[case.masking] = reference(workload, case.masking)
            contender = build(case.name, case.variant, workload, case.masking)
            result = check(contender, against[case.masking])
        except Exception as error:
            leave_out(case.masking, case.name, reason(error))
            _free()
            continue
        tell(result.told() + budget.told())
        if result.passed:
            contenders.append(contender)
            checks.append(result)
        else:
            failed[case.masking][case.name] = f"differs from the reference: {result.told()}"
            del contender
    if not given:
        against.clear()
    for i, why in reversed(warmed(contenders, warmup)):
        leave_out(contenders[i].masking, contenders[i].name, why)
        del contenders[i], checks[i]
    _free()

    def found(taken: list[dict[str, list[float]]], *, peaks: bool) -> dict[str, Any]:
        timed = zip(contenders, taken, checks, strict=True) if taken else ()
        return {
            "workload": workload.describe(),
            "checks": [asdict(result) for result in checks],
            "runs": [run_record(*one, peak=peaks) for one in timed],
            "failed": failed,
        }

    keep(found([], peaks=False))
    if not contenders:
        return found([], peaks=False)
    taken = interleaved(
        contenders,
        repeats,
        warmup=0,
        budget=budget,
        tell=tell,
        keep=lambda taken: keep(found(taken, peaks=False)),
    )
    return found(taken, peaks=True)


def warmed(contenders: Sequence[Contender], steps: int) -> list[tuple[int, str]]:
    """Some steps of each; the places of those that fail (too little memory, say), and why."""
    found = []
    for i, contender in enumerate(contenders):
        try:
            for _ in range(steps):
                timed_step(contender, phases=False)
        except Exception as error:
            found.append((i, reason(error)))
            contender.optimizer.zero_grad()
            _free()
    return found


def reason(error: Exception) -> str:
    """Why a contender is left out, in a line; of what nobody expected, all of it is printed."""
    told = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
    if isinstance(error, MISSING):
        return told
    traceback.print_exception(error)
    return CRASHED + told


def run_record(
    contender: Contender, seconds: dict[str, list[float]], result: Check, *, peak: bool = True
) -> dict[str, Any]:
    """One row of the record; `peak`: with the memory of a step on a GPU, which takes one more."""
    workload, variant = contender.workload, contender.variant
    spec = workload.spec(contender.masking)
    total = Summary.of(seconds["total"])
    official = sum(flops(workload.config, spec, "official").values())
    if variant.kind == "ours":
        own = float(sum(flops(workload.config, spec, "ours", batch=workload.batch).values()))
    elif variant.accelerated != "no":
        own = accelerated.multiply_adds(workload.config, spec, workload.batch)
    else:
        own = multiply_adds(workload.config, spec, variant.savings, workload.batch)
    row = {
        "contender": contender.name,
        "masking": contender.masking,
        "variant": variant.to_dict(),
        "seconds": seconds,
        "summary": {phase: asdict(Summary.of(times)) for phase, times in seconds.items()},
        "kept_for_backward_bytes_per_clip": result.kept_bytes / workload.batch,
        "forward_multiply_adds_per_clip": own,
        # Of the official multiply-adds for all, as a share of the rate: 6 = 2 flop x 3 passes
        "official_flop_per_second": official * 6 * workload.batch / total.median,
    }
    if peak and contender.device.type == "cuda":
        row["step_peak_bytes_per_clip"] = contender.step_peak() / workload.batch
    return row


def _fresh_compiler() -> None:
    """Nothing compiled for other shapes, and no limit at which a model silently runs eagerly.

    Contenders share classes, and the compiler counts what it compiled by class.
    """
    import torch._dynamo

    torch.compiler.reset()
    torch._dynamo.config.recompile_limit = 64
    torch._dynamo.config.fail_on_recompile_limit_hit = True


def _free() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
