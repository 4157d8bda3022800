"""The baselines on a GPU and ours beside them, in one process, interleaved, equality first.

Called by :mod:`benchmarks.ceilings`. Never run on a GPU so far; on the CPU its logic is tested with
tiny shapes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from typing import Any

import torch

from benchmarks.checks import Check, Truth, check, truth
from benchmarks.contenders import Contender, Variant, build
from benchmarks.timing import Summary, interleaved, synchronize, timed_step
from benchmarks.workload import Masking, Workload
from videomae_fast.models.flops import Implementation, flops

BASELINES: dict[str, Variant] = {
    "official as shipped, eager": Variant("official", precision="fp16", from_host=True),
    "official as shipped, compiled": Variant(
        "official", precision="fp16", from_host=True, compiled=True
    ),
    "official repaired, eager": Variant("official", tables="repaired", precision="fp16"),
    "official repaired, compiled": Variant(
        "official", tables="repaired", precision="fp16", compiled=True
    ),
    "strong": Variant(
        "official",
        tables="repaired",
        attention="sdpa",
        precision="bf16",
        compiled=True,
        lean=True,
    ),
    "Hugging Face as shipped": Variant("hugging-face", precision="bf16", from_host=True),
    "Hugging Face repaired": Variant("hugging-face", tables="repaired", precision="bf16"),
    "ours, eager": Variant("ours", precision="bf16", lean=True),
    "ours, compiled": Variant("ours", precision="bf16", lean=True, compiled=True),
}
# The official scripts of these sizes use activation checkpointing.
CHECKPOINTED = ("huge", "giant")
Tell = Callable[[str], None]


def variants(size: str, names: Sequence[str] | None = None) -> dict[str, Variant]:
    """The contenders of a size.

    Raises:
        ValueError: a name that there is not.
    """
    unknown = sorted(set(names or ()) - set(BASELINES))
    if unknown:
        raise ValueError(f"unknown baselines {unknown}; there are {', '.join(BASELINES)}")
    found = {}
    for name, variant in BASELINES.items():
        if names is not None and name not in names:
            continue
        shipped = variant.kind == "official" and not variant.lean
        found[name] = replace(variant, checkpointing=shipped and size in CHECKPOINTED)
    return found


def reference(workload: Workload, masking: Masking) -> Truth:
    """fp32 loss and gradients of the transcription; checkpointing lets it fit at any batch."""
    variant = Variant("official", tables="repaired", checkpointing=True)
    return truth(build("official in fp32", variant, workload, masking))


def measure(
    workload: Workload,
    size: str,
    masking: Masking,
    *,
    names: Sequence[str] | None = None,
    repeats: int,
    warmup: int,
    tell: Tell = print,
) -> dict[str, Any]:
    """Checks and times of the contenders of one masking; what can't run is named with its reason.

    Returns:
        "checks", "runs" and "failed", as :mod:`benchmarks.tables` takes them. Only those whose
        check passed are timed; one that did not is in "failed" too.
    """
    against = reference(workload, masking)
    failed: dict[str, str] = {}
    contenders: list[Contender] = []
    checks: list[Check] = []
    for name, variant in variants(size, names).items():
        if variant.kind == "hugging-face" and masking != "encoder-only":
            continue
        try:
            contender = build(name, variant, workload, masking)
            result = check(contender, against)
        except (ModuleNotFoundError, torch.cuda.OutOfMemoryError) as error:
            failed[name] = f"{type(error).__name__}: {str(error).splitlines()[0]}"
            tell(f"{name}: {failed[name]}")
            continue
        tell(result.told())
        if result.passed:
            contenders.append(contender)
            checks.append(result)
        else:
            failed[name] = f"differs from the reference: {result.told()}"
    taken = interleaved(contenders, repeats, warmup=warmup, tell=tell)
    runs = [
        run_record(contender, seconds, result)
        for contender, seconds, result in zip(contenders, taken, checks, strict=True)
    ]
    return {"checks": [asdict(result) for result in checks], "runs": runs, "failed": failed}


def run_record(contender: Contender, seconds: dict[str, list[float]], result: Check) -> Any:
    """One row of the record."""
    workload = contender.workload
    kind: Implementation = "ours" if contender.variant.kind == "ours" else "official"
    spec = workload.spec(contender.masking)
    total = Summary.of(seconds["total"])
    official = sum(flops(workload.config, spec, "official").values())
    row = {
        "contender": contender.name,
        "masking": contender.masking,
        "variant": asdict(contender.variant),
        "seconds": seconds,
        "summary": {phase: asdict(Summary.of(times)) for phase, times in seconds.items()},
        "kept_for_backward_bytes_per_clip": result.kept_bytes / workload.batch,
        "forward_multiply_adds_per_clip": sum(flops(workload.config, spec, kind).values()),
        # Of the official multiply-adds for all, as a share of the rate: 6 = 2 flop x 3 passes
        "official_flop_per_second": official * 6 * workload.batch / total.median,
    }
    if contender.device.type == "cuda":
        row["step_peak_bytes_per_clip"] = step_peak(contender) / workload.batch
    return row


def step_peak(contender: Contender) -> float:
    """Bytes that a training step needs above what lies on the GPU before it."""
    contender.optimizer.zero_grad()
    synchronize(contender.device)
    before = torch.cuda.memory_allocated(contender.device)
    torch.cuda.reset_peak_memory_stats(contender.device)
    timed_step(contender, phases=False)
    peak = torch.cuda.max_memory_allocated(contender.device)
    return float(peak - before)
