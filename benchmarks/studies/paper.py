"""The paper's table of dual masking, measured: multiply-adds, memory, time, speedup.

    python -m benchmarks paper                                  # ViT-S and ViT-B on a CPU
    python -m benchmarks paper --device cuda                    # every size on a GPU
    python -m benchmarks paper --official-checkout VideoMAEv2   # the official code itself, too

For each size: the official computation and ours, each with the encoder's mask only and with dual
masking, all of them checked and timed in turns in one process; the paper's row beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from benchmarks.measure.cases import measure
from benchmarks.report.plots import plot_paper
from benchmarks.report.studies import paper_table
from benchmarks.studies.study import (
    Record,
    Study,
    add_peaks,
    arguments,
    on_gpu,
    prepare,
    sizes_argument,
    study_cases,
    with_contenders,
    workload_of,
)
from videomae_fast.models.config import SIZES


def _keep(study: Study, size: str, part: Record) -> None:
    study.keep({"size": size, **part})


def main(argv: Sequence[str]) -> int:
    words = list(argv)
    parser = with_contenders(arguments("paper", __doc__))
    sizes_argument(parser)
    parser.add_argument("--no-memory", action="store_true", help="no peak memory (on a CPU)")
    args = parser.parse_args(words)
    prepare(parser, args)
    sizes = args.sizes or (SIZES if on_gpu(args) else SIZES[:2])
    command = ["python", "-m", "benchmarks", "paper", *words]
    study = Study("paper", "-".join(sizes), args, command)
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
    return study.finish(paper_table, plot_paper)
