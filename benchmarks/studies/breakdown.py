"""What each gain is worth: from the official computation to ours, one thing switched on at a time.

    python -m benchmarks breakdown                        # ViT-S on a CPU
    python -m benchmarks breakdown --compile              # with torch.compile as the last step
    python -m benchmarks breakdown --device cuda --size base

All steps of the chain are checked against the official computation and timed in turns in one
process; each is compared with the one before it. What a loader has to make is timed by itself.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace

from benchmarks.common.workload import Masking
from benchmarks.contenders.base import Variant
from benchmarks.measure.cases import Case, measure
from benchmarks.official.savings import SAVINGS
from benchmarks.studies.baselines import CHECKPOINTED
from benchmarks.studies.data_path import data_path
from benchmarks.studies.study import Study, on_gpu, prepare, study_arguments, workload_of

SAVED = {
    "needed-targets": "targets of the decoded tokens only",
    "R1": "R1: patch embedding of visible tokens only",
    "R2": "R2: last decoder block for tokens in the loss only",
    "R3": "R3: first decoder block's QKV of mask tokens once for all clips",
}


@dataclass(frozen=True)
class Step:
    """A link of the chain: what is switched on, and the contender that has it and all before."""

    name: str
    variant: Variant
    masking: Masking = "dual"

    def case(self) -> Case:
        """What :func:`benchmarks.measure.cases.measure` takes."""
        return Case(self.name, self.variant, self.masking)


def chain(size: str, *, gpu: bool, compiled: bool) -> list[Step]:
    """From the official computation as shipped, with the encoder's mask only, to ours.

    On a GPU it starts in fp16 with a gradient scaler, inputs are copied from the host in each
    step, and the scripts' activation checkpointing is on for the sizes that have it.
    """
    shipped = Variant(
        "official",
        precision="fp16" if gpu else "fp32",
        from_host=gpu,
        checkpointing=gpu and size in CHECKPOINTED,
    )
    found = [
        Step("official, encoder's mask only", shipped, "encoder-only"),
        Step("dual masking", shipped),
    ]

    def then(name: str, variant: Variant) -> Variant:
        found.append(Step(name, variant))
        return variant

    if shipped.checkpointing:
        then("no activation checkpointing", replace(shipped, checkpointing=False))
    last = then("position tables on the device", replace(found[-1].variant, tables="repaired"))
    told = "fused AdamW, no reading of the loss"
    if gpu:
        last = replace(last, precision="bf16")
        told = f"bf16 without a scaler, {told}"
    last = then(told, replace(last, lean=True))
    for i, saving in enumerate(SAVINGS):
        last = then(SAVED[saving], replace(last, savings=SAVINGS[: i + 1]))
    then("fused attention", replace(last, attention="sdpa"))
    ours = Variant(
        "ours",
        precision=last.precision,
        from_host=gpu,
        lean=True,
        backend="reference",
        op_backends={"attention": "sdpa", "linear": "torch"},
    )
    then("our blocks, token indices, uint8 clips; other ops by their references", ours)
    ours = replace(ours, backend="auto", op_backends={"linear": "torch"})
    then("kernels: Triton's" if gpu else "kernels: the native library's", ours)
    if not gpu:
        ours = then("matmuls by oneDNN, where faster", replace(ours, op_backends={}))
    if compiled:
        ours = then("torch.compile", replace(ours, compiled=True))
    if gpu:
        then("captured as a CUDA graph", replace(ours, captured=True))
    return found


def arguments() -> argparse.ArgumentParser:
    """The parser of ``breakdown``."""
    parser = study_arguments("breakdown", __doc__, size="small")
    parser.add_argument(
        "--compile", action="store_true", help="also under torch.compile; on a GPU always"
    )
    return parser


def main(argv: Sequence[str]) -> int:
    """Measures the chain.

    Returns:
        As :meth:`Study.finish`.
    """
    parser = arguments()
    args = parser.parse_args(argv)
    prepare(parser, args)
    workload = workload_of(args.size, args)
    study = Study("breakdown", args.size, args, argv)
    steps = chain(args.size, gpu=on_gpu(args), compiled=args.compile or on_gpu(args))
    part = measure(
        workload,
        [step.case() for step in steps],
        repeats=args.repeats,
        warmup=args.warmup,
        budget=study.budget,
        keep=lambda part: study.keep({"size": args.size, **part}),
    )
    part["chain"] = [[step.name, step.masking] for step in steps]
    part["data_path"] = data_path(workload, max(3, args.repeats))
    study.add({"size": args.size, **part})
    return study.finish()
