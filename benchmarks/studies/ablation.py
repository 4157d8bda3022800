"""What masks and shapes cost: time and memory of a training step, one thing varied at a time.

    python -m benchmarks ablation masks                      # decoder mask: type and ratio
    python -m benchmarks ablation batch --values 1 2 4 8
    python -m benchmarks ablation frames
    python -m benchmarks ablation resolution
    python -m benchmarks ablation size --device cuda

The cost side of the papers' ablations, for the official computation and ours: what the masks do to
accuracy is in the papers. Every point is checked before it is timed, its contenders in turns.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, get_args

from benchmarks.common.workload import DecoderMask, Masking, Workload
from benchmarks.measure.cases import measure
from benchmarks.studies.study import (
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

RATIOS = (0.25, 0.5, 0.75)
# By what is varied: values on a CPU, on a GPU
VALUES: dict[str, tuple[Sequence[Any], Sequence[Any]]] = {
    "batch": ((1, 2, 4, 8), (1, 4, 16, 64, 128)),
    "frames": ((8, 16, 32), (8, 16, 32, 64)),
    "resolution": ((112, 160, 224), (112, 160, 224, 320)),
    "size": (("small", "base"), SIZES),
}
WHAT = ("masks", *VALUES)


@dataclass(frozen=True)
class Point:
    """One shape: the value of what is varied, and what of the workload follows from it."""

    value: Any
    size: Any
    masking: Masking = "dual"
    fields: dict[str, Any] = field(default_factory=dict)


def points(what: str, args: argparse.Namespace) -> list[Point]:
    """What is measured, from the command line."""
    if what == "masks":
        found = [Point("none", args.size, "encoder-only")]
        for kind in get_args(DecoderMask):
            for ratio in RATIOS:
                fields = {"decoder": kind, "ratio": ratio}
                found.append(Point(f"{kind} {ratio}", args.size, fields=fields))
        return found
    values = args.values or VALUES[what][on_gpu(args)]
    if what == "size":
        return [Point(value, value) for value in values]
    name = {"batch": "batch", "frames": "frames", "resolution": "image_size"}[what]
    return [Point(int(value), args.size, fields={name: int(value)}) for value in values]


def checked_values(parser: argparse.ArgumentParser, args: argparse.Namespace) -> list[Point]:
    """The points; ends the program where a value can't be."""
    if args.values and args.what == "masks":
        parser.error("masks have no --values: every decoder mask is measured")
    try:
        found = points(args.what, args)
        for point in found:
            workload: Workload = workload_of(point.size, args, **point.fields)
            workload.spec(point.masking).counts(workload.config.grid)
    except ValueError as error:
        parser.error(str(error))
    return found


def arguments() -> argparse.ArgumentParser:
    """The parser of ``ablation``."""
    parser = with_contenders(study_arguments("ablation", __doc__, size="small"))
    parser.add_argument("what", choices=WHAT, help="what is varied")
    parser.add_argument("--values", nargs="+", help="of what is varied")
    parser.add_argument("--peak", action="store_true", help="peak memory, too (slow on a CPU)")
    return parser


def main(argv: Sequence[str]) -> int:
    """Measures each point.

    Returns:
        As :meth:`Study.finish`.
    """
    parser = arguments()
    args = parser.parse_args(argv)
    prepare(parser, args)
    todo = checked_values(parser, args)
    study = Study("ablation", args.what, args, argv)
    for i, point in enumerate(todo):
        share = study.budget.share(len(todo) - i)
        print(f"{args.what} {point.value}{share.told()}", flush=True)
        part = measure(
            workload_of(point.size, args, **point.fields),
            study_cases(point.size, args, [point.masking]),
            repeats=args.repeats,
            warmup=args.warmup,
            budget=share.share(2 if args.peak else 1),
        )
        if args.peak:
            add_peaks(part, args, share)
        study.add({"size": point.size, "value": point.value, **part})
    return study.finish()
