"""The paper's table of dual masking, measured: multiply-adds, memory, time, speedup.

    python -m benchmarks paper                                  # ViT-S and ViT-B on a CPU
    python -m benchmarks paper --device cuda                    # every size on a GPU
    python -m benchmarks paper --official-checkout VideoMAEv2   # the official code itself, too

For each size: the official computation and ours, each with the encoder's mask only and with dual
masking, all of them checked and timed in turns in one process; the paper's row beside it.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import partial

from benchmarks.measure.cases import measure
from benchmarks.studies.study import (
    Record,
    Study,
    add_peaks,
    on_gpu,
    prepare,
    study_arguments,
    study_cases,
    with_contenders,
    workload_of,
)
from videomae_fast.models.config import SIZES


def _keep(study: Study, size: str, part: Record) -> None:
    study.keep({"size": size, **part})


def arguments() -> argparse.ArgumentParser:
    """The parser of ``paper``."""
    parser = with_contenders(study_arguments("paper", __doc__))
    parser.add_argument(
        "--sizes", nargs="+", choices=SIZES, help="default: small and base on a CPU, all on a GPU"
    )
    parser.add_argument("--no-memory", action="store_true", help="no peak memory (on a CPU)")
    return parser


def main(argv: Sequence[str]) -> int:
    """Measures each size.

    Returns:
        As :meth:`Study.finish`.
    """
    parser = arguments()
    args = parser.parse_args(argv)
    prepare(parser, args)
    sizes = args.sizes or (SIZES if on_gpu(args) else SIZES[:2])
    study = Study("paper", "-".join(sizes), args, argv)
    for i, size in enumerate(sizes):
        share = study.budget.share(len(sizes) - i)
        print(f"ViT-{size}{share.told()}", flush=True)
        memory = not (args.no_memory or on_gpu(args))
        part = measure(
            workload_of(size, args),
            study_cases(size, args, ("encoder-only", "dual")),
            repeats=args.repeats,
            warmup=args.warmup,
            budget=share.share(2 if memory else 1),
            keep=partial(_keep, study, size),
        )
        if memory:
            add_peaks(part, args, share)
        study.add({"size": size, **part})
    return study.finish()
