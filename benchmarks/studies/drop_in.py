"""What ``accelerate`` does for code that is there already, and what ours does beyond it.

    python -m benchmarks drop-in --official-checkout VideoMAEv2   # ViT-S on a CPU, under 5 minutes
    python -m benchmarks drop-in --device cuda --size base

The official code itself (where a checkout of it is given) and Hugging Face's model: as shipped,
accelerated in two lines, accelerated in all lines, and ours. All of them are checked and timed in
turns in one process.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from benchmarks.common.workload import MASKINGS
from benchmarks.measure.cases import Case, measure
from benchmarks.studies.baselines import cases
from benchmarks.studies.study import (
    Study,
    in_studies_precision,
    prepare,
    study_arguments,
    with_checkout,
    workload_of,
)

OURS = "ours, eager"
# Each begins with the code as it is, and ends with ours.
CHAINS: dict[str, list[str]] = {
    "official code": [
        "official code as shipped, eager",
        "official code accelerated, two lines",
        "official code accelerated, all lines",
        OURS,
    ],
    "Hugging Face": [
        "Hugging Face as shipped",
        "Hugging Face accelerated, two lines",
        "Hugging Face accelerated, all lines",
        OURS,
    ],
}
SECONDS = 290.0


def drop_in_cases(size: str, args: argparse.Namespace) -> list[Case]:
    """Those of the official code, too, without a checkout: they are then named as missing."""
    names = [name for chain in CHAINS.values() for name in chain]
    checkout = "" if args.official_checkout is None else str(args.official_checkout)
    found = [case for masking in args.masking for case in cases(size, masking, names, checkout)]
    return in_studies_precision(found, args)


def arguments() -> argparse.ArgumentParser:
    """The parser of ``drop-in``."""
    parser = with_checkout(study_arguments("drop-in", __doc__, SECONDS, size="small"))
    parser.add_argument("--masking", nargs="+", choices=MASKINGS, default=["encoder-only", "dual"])
    return parser


def main(argv: Sequence[str]) -> int:
    """Measures the chains.

    Returns:
        As :meth:`Study.finish`.
    """
    parser = arguments()
    args = parser.parse_args(argv)
    prepare(parser, args)
    study = Study("drop-in", args.size, args, argv)
    part = measure(
        workload_of(args.size, args),
        drop_in_cases(args.size, args),
        repeats=args.repeats,
        warmup=args.warmup,
        budget=study.budget,
    )
    study.add({"size": args.size, **part, "chains": CHAINS})
    return study.finish()
