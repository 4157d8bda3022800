"""A training step of ours against the official computation: equality first, then time.

    python -m benchmarks step --size small --batch 4 --threads 2

Forward, backward and AdamW in fp32, dual and encoder-only masking, in one process, interleaved.
Loss and every gradient are compared with the transcription's before anything is timed; where they
differ nothing is timed and the exit code is 1. Writes JSON, a markdown table and a plot.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from benchmarks.common.record import RESULTS, environment, stamp, write
from benchmarks.common.workload import MASKINGS, Masking, Workload
from benchmarks.contenders.base import Contender, Variant
from benchmarks.contenders.build import build
from benchmarks.measure.cases import run_record
from benchmarks.measure.checks import Check, check, truth
from benchmarks.measure.profiling import print_profile
from benchmarks.measure.timing import interleaved
from benchmarks.report.plots import plot_step
from benchmarks.report.tables import step_table
from videomae_fast import MAEConfig
from videomae_fast.models.config import SIZES

OFFICIAL, OURS = "official", "ours"
VARIANTS = {
    OFFICIAL: Variant("official"),
    OURS: Variant("ours", lean=True),
}


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks step", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--size", choices=SIZES, default="small")
    parser.add_argument("--batch", type=int, default=4, help="clips; default: 4")
    parser.add_argument("--decoder-mask-ratio", type=float, default=0.5, help="default: 0.5")
    parser.add_argument("--masking", nargs="+", choices=MASKINGS, default=list(MASKINGS))
    parser.add_argument("--frames", type=int, default=16, help="per clip; default: 16")
    parser.add_argument("--image-size", type=int, default=224, help="pixels; default: 224")
    parser.add_argument("--depth", type=int, help="blocks of the encoder; default: the size's")
    parser.add_argument("--threads", type=int, default=2, help="of the CPU; default: 2")
    parser.add_argument("--device", default="cpu", help="cpu or cuda; default: cpu")
    parser.add_argument("--repeats", type=int, default=9, help="steps timed of each; default: 9")
    parser.add_argument("--warmup", type=int, default=2, help="steps before; default: 2")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--memory", action="store_true", help="also measure peak memory (Linux)")
    parser.add_argument(
        "--profile", action="store_true", help="where the time goes instead of how long it takes"
    )
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder; default: %(default)s")
    return parser


def workload_of(args: argparse.Namespace) -> Workload:
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
        found.append(check(of[OURS], against))
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
    words = list(argv)
    args = arguments().parse_args(words)
    record = measure(args, ["python", "-m", "benchmarks", "step", *words])
    if not all(result["passed"] for result in record["checks"]):
        print("not equal to the official computation: nothing was timed", file=sys.stderr)
        return 1
    if args.profile:
        name = f"profile-{args.size}-batch{args.batch}-{args.device.replace(':', '')}-{stamp()}"
        print(f"written: {write(record, args.out / f'{name}.json')}")
        return 0
    name = f"step-{args.size}-batch{args.batch}-{args.device.replace(':', '')}-{stamp()}"
    path = write(record, args.out / f"{name}.json")
    table = step_table(record)
    path.with_suffix(".md").write_text(table + "\n", encoding="utf-8")
    plot_step(record, path.with_suffix(".png"))
    print(f"\n{table}\n\nwritten: {path}, and .md and .png beside it")
    return 0
