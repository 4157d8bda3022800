"""A training step of ours against the official computation: equality first, then time.

    python -m benchmarks step --size small --batch 4 --threads 2

Forward, backward and AdamW in fp32, dual and encoder-only masking, in one process, interleaved;
with ``--bf16`` ours in bf16, too, whose gradients are compared within what bf16 rounds.
Loss and every gradient are compared with the transcription's before anything is timed; where they
differ nothing is timed and the exit code is 1. Writes JSON, a markdown table and a plot.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import torch

from benchmarks.common.command import command_of, parser_of, results_folder
from benchmarks.common.record import environment, stamp, write
from benchmarks.common.workload import MASKINGS, Masking, Workload
from benchmarks.contenders.base import Contender, Variant
from benchmarks.contenders.build import build
from benchmarks.measure.cases import run_record
from benchmarks.measure.checks import Check, check, truth
from benchmarks.measure.profiling import print_profile
from benchmarks.measure.timing import interleaved
from benchmarks.report.records import finish
from videomae_fast import MAEConfig

OFFICIAL, OURS, OURS_BF16 = "official", "ours", "ours, bf16"
VARIANTS = {
    OFFICIAL: Variant("official"),
    OURS: Variant("ours", lean=True),
    OURS_BF16: Variant("ours", lean=True, precision="bf16"),
}


def arguments() -> argparse.ArgumentParser:
    """The parser of ``step``."""
    parser = parser_of(
        "step", __doc__, device="cpu", size="small", batch=4, threads=2, repeats=9, warmup=2, seed=0
    )
    parser.add_argument("--decoder-mask-ratio", type=float, default=0.5, help="default: 0.5")
    parser.add_argument("--masking", nargs="+", choices=MASKINGS, default=list(MASKINGS))
    parser.add_argument("--frames", type=int, default=16, help="per clip; default: 16")
    parser.add_argument("--image-size", type=int, default=224, help="pixels; default: 224")
    parser.add_argument("--depth", type=int, help="blocks of the encoder; default: the size's")
    parser.add_argument("--bf16", action="store_true", help="ours with --precision bf16, too")
    parser.add_argument("--memory", action="store_true", help="also measure peak memory (Linux)")
    parser.add_argument(
        "--profile", action="store_true", help="where the time goes instead of how long it takes"
    )
    return parser


def workload_of(args: argparse.Namespace) -> Workload:
    """Clips and model of the shape that the command line asks for."""
    fields: dict[str, Any] = {"frames": args.frames, "image_size": args.image_size}
    if args.depth is not None:
        fields["depth"] = args.depth
    config = MAEConfig.from_size(args.size, **fields)
    return Workload(config, args.batch, args.decoder_mask_ratio, args.seed, args.device)


def checked(contenders: Sequence[Contender]) -> list[Check]:
    """Each of ours against the official one of the same masking."""
    found = []
    for masking in dict.fromkeys(c.masking for c in contenders):
        of = {c.name: c for c in contenders if c.masking == masking}
        against = truth(of[OFFICIAL])
        found += [check(of[name], against) for name in of if name != OFFICIAL]
        # The reference against itself: what it keeps for backward, and that it repeats
        found.append(check(of[OFFICIAL], against))
    return found


def measure(args: argparse.Namespace, command: list[str]) -> dict[str, Any]:
    """The record: checks, and times only where all of them passed."""
    torch.set_num_threads(args.threads)
    workload = workload_of(args)
    maskings: list[Masking] = list(dict.fromkeys(args.masking))
    contenders = [
        build(name, variant, workload, masking)
        for masking in maskings
        for name, variant in VARIANTS.items()
        if args.bf16 or name != OURS_BF16
    ]
    checks = checked(contenders)
    for result in checks:
        print(result.told(), flush=True)
    record = {
        "kind": "training step",
        **environment(args.device, command),
        "workload": {"size": args.size, **workload.describe()},
        "settings": {"repeats": args.repeats, "warmup": args.warmup, "interleaved": True},
        "checks": [asdict(result) for result in checks],
        "runs": [],
    }
    if not all(result.passed for result in checks):
        return record
    if args.profile:
        record |= {"kind": "profile of a training step"}
        record["profiles"] = [print_profile(contender) for contender in contenders]
        return record
    taken = interleaved(contenders, args.repeats, warmup=args.warmup)
    by_name = {(c.masking, c.contender): c for c in checks}
    record["runs"] = [
        run_record(c, seconds, by_name[c.masking, c.name])
        for c, seconds in zip(contenders, taken, strict=True)
    ]
    if args.memory:
        del contenders
        from benchmarks.measure.memory import peak_memory

        for row in record["runs"]:
            row["peak_memory"] = peak_memory(
                workload, VARIANTS[row["contender"]], row["masking"], args.threads
            )
    return record


def main(argv: Sequence[str]) -> int:
    """Measures, and writes record, table and plot.

    Returns:
        1 where ours is not equal to the official computation; then nothing is written.
    """
    args = arguments().parse_args(argv)
    record = measure(args, command_of("step", argv))
    if not all(result["passed"] for result in record["checks"]):
        print("not equal to the official computation: nothing was timed", file=sys.stderr)
        return 1
    kind, device = "profile" if args.profile else "step", args.device.replace(":", "")
    name = f"{kind}-{args.size}-batch{args.batch}-{device}-{stamp()}.json"
    path = results_folder(args) / name
    if not args.profile:
        return finish(record, path)
    print(f"written: {write(record, path)}")
    return 0
