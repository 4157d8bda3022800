"""A fine-tuning step of the classifier against the official one: equality first, then time.

    python -m benchmarks finetune-step --size small --batch 4
    python -m benchmarks finetune-step --size base --batch 2 --official-checkout ../VideoMAEv2

Forward, backward and AdamW with layer decay on clips that are mixed within the step, mixup and
cutmix, soft targets of 400 classes; in fp32 on a CPU (on a GPU fp16 as shipped against bf16), in
one process, interleaved. With a checkout its own model is timed, too, as it is and under
``accelerate``. Loss and every gradient are compared with the transcription's before anything is
timed; where they differ nothing is timed and the exit code is 1.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import torch

from benchmarks.common.command import command_of, device_of, parser_of, results_folder
from benchmarks.common.record import environment, stamp
from benchmarks.common.workload import MIXINGS, Mixing
from benchmarks.contenders.base import Variant
from benchmarks.contenders.checkout import Checkout
from benchmarks.contenders.classifiers import (
    Classifying,
    LabelledWorkload,
    build,
    in_precision,
    multiply_adds,
)
from benchmarks.measure.checks import Check, check, truth
from benchmarks.measure.timing import Budget, Summary, interleaved
from benchmarks.report.records import finish
from benchmarks.studies.study import with_checkout
from videomae_fast import MAEConfig

OFFICIAL, OURS = "official", "ours"
CODE, ACCELERATED = "official code", "official code, accelerated"


def arguments() -> argparse.ArgumentParser:
    """The parser of ``finetune-step``."""
    parser = parser_of(
        "finetune-step", __doc__, device="cpu", size="small", batch=4, threads=2, repeats=9,
        warmup=1, seed=0, seconds=540.0,
    )  # fmt: skip
    parser.add_argument("--mixing", nargs="+", choices=MIXINGS, default=list(MIXINGS))
    parser.add_argument("--classes", type=int, default=400, help="of the head; default: 400")
    parser.add_argument("--frames", type=int, default=16, help="per clip; default: 16")
    parser.add_argument("--image-size", type=int, default=224, help="pixels; default: 224")
    parser.add_argument("--depth", type=int, help="blocks; default: the size's")
    return with_checkout(parser)


def variants(args: argparse.Namespace) -> dict[str, Variant]:
    """Who is compared, by name; the official computation first."""
    found = {OFFICIAL: Variant("official")}
    if args.official_checkout is not None:
        code = Variant("checkout", checkout=str(args.official_checkout))
        found[CODE] = code
        found[ACCELERATED] = Variant(
            "checkout", checkout=str(args.official_checkout), accelerated="two lines"
        )
    found[OURS] = Variant("ours", lean=True)
    on_gpu = torch.device(args.device).type == "cuda"
    return {name: in_precision(variant, on_gpu) for name, variant in found.items()}


def run_of(contender: Classifying, seconds: dict[str, list[float]], kept: int) -> dict[str, Any]:
    """One row of the record."""
    workload = contender.workload
    total = Summary.of(seconds["total"])
    operations = multiply_adds(workload.config, workload.classes)
    row = {
        "contender": contender.name,
        "masking": contender.masking,
        "variant": {**contender.variant.to_dict(), "checkout": ""},
        "seconds": seconds,
        "summary": {phase: asdict(Summary.of(times)) for phase, times in seconds.items()},
        "kept_for_backward_bytes_per_clip": kept / workload.batch,
        "forward_multiply_adds_per_clip": operations,
        "official_flop_per_second": operations * 6 * workload.batch / total.median,
    }
    if contender.device.type == "cuda":
        row["step_peak_bytes_per_clip"] = contender.step_peak() / workload.batch
    return row


def measure(args: argparse.Namespace, command: list[str]) -> dict[str, Any]:
    """The record: checks, and times only where all of them passed."""
    torch.set_num_threads(args.threads)
    fields: dict[str, Any] = {"frames": args.frames, "image_size": args.image_size}
    if args.depth is not None:
        fields["depth"] = args.depth
    config = MAEConfig.from_size(args.size, **fields)
    workload = LabelledWorkload(
        config, args.batch, seed=args.seed, device=args.device, classes=args.classes
    )
    mixings: list[Mixing] = list(dict.fromkeys(args.mixing))
    contenders: list[Classifying] = []
    checks: list[Check] = []
    for mixing in mixings:
        # The reference in fp32 is its own contender where it works in another precision
        against = truth(build("official in fp32", Variant("official"), workload, mixing))
        for name, variant in variants(args).items():
            contender = build(name, variant, workload, mixing)
            result = check(contender, against)
            print(result.told(), flush=True)
            contenders.append(contender)
            checks.append(result)
    record: dict[str, Any] = {
        "kind": "fine-tuning step",
        **environment(args.device, command),
        "workload": {"size": args.size, **workload.describe()},
        "settings": {"repeats": args.repeats, "warmup": args.warmup, "interleaved": True},
        "checks": [asdict(result) for result in checks],
        "runs": [],
    }
    if args.official_checkout is not None:
        record["official_checkout"] = Checkout.at(args.official_checkout).describe()
    if all(result.passed for result in checks):
        budget = Budget(args.seconds)
        taken = interleaved(contenders, args.repeats, warmup=args.warmup, budget=budget)
        record["runs"] = [
            run_of(c, seconds, result.kept_bytes)
            for c, seconds, result in zip(contenders, taken, checks, strict=True)
        ]
    return record


def main(argv: Sequence[str]) -> int:
    """Measures, and writes record, table and plot.

    Returns:
        1 where one is not equal to the official computation; then nothing is written.
    """
    parser = arguments()
    args = parser.parse_args(argv)
    device_of(parser, args.device)
    if args.batch % 2:
        parser.error(f"--batch {args.batch}: clips are mixed in pairs, so it must be even")
    try:
        if args.official_checkout is not None:
            Checkout.at(args.official_checkout)
    except FileNotFoundError as error:
        parser.error(str(error))
    record = measure(args, command_of("finetune-step", argv))
    if not record["runs"]:
        print("not equal to the official computation: nothing was timed", file=sys.stderr)
        return 1
    device = args.device.replace(":", "")
    name = f"finetune-step-{args.size}-batch{args.batch}-{device}-{stamp()}.json"
    return finish(record, results_folder(args) / name)
