"""What the studies share: options, one record with a part per measured shape, and its files."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.common.command import command_of, device_of, parser_of, results_folder
from benchmarks.common.record import environment, stamp, write
from benchmarks.common.workload import MASKINGS, Masking, Workload
from benchmarks.common.workload import TINY as TINY_CLIPS
from benchmarks.contenders.base import Variant
from benchmarks.contenders.checkout import Checkout
from benchmarks.measure.cases import CRASHED, Case, Tell
from benchmarks.measure.memory import CLEAR, peak_memory
from benchmarks.measure.timing import Budget
from benchmarks.report.records import finish
from benchmarks.studies.baselines import CHECKOUTS, cases
from videomae_fast import MAEConfig
from videomae_fast.models.config import Size

TINY = replace(TINY_CLIPS, frames=16)  # what V1's model takes
# Clips that fit beside two models of a size and their encoder-only twins
GPU_BATCH: dict[str, int] = {"small": 128, "base": 128, "large": 64, "huge": 32, "giant": 32}
CPU_BATCH = 4
SECONDS = 540.0
Record = dict[str, Any]


def study_arguments(
    command: str, doc: str | None, seconds: float = SECONDS, **defaults: Any
) -> argparse.ArgumentParser:
    """The parser of a study; after `seconds` there are fewer rounds, then fewer contenders."""
    shared = {"device": "cpu", "threads": 2, "repeats": 9, "warmup": 1, "seed": 0, **defaults}
    parser = parser_of(command, doc, tiny=True, seconds=seconds, **shared)
    parser.add_argument("--batch", type=int, help="clips; default: 4 on a CPU, by size on a GPU")
    return parser


def with_contenders(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """Adds --contenders and --official-checkout."""
    parser.add_argument(
        "--contenders",
        nargs="+",
        metavar="NAME",
        help="baselines by name (see benchmarks/studies/baselines.py); on a CPU all of them "
        "work in fp32; default: the official computation as shipped, and ours, both eager",
    )
    return with_checkout(parser)


def with_checkout(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """Adds --official-checkout."""
    parser.add_argument(
        "--official-checkout", type=Path, help="folder of the official code: time it itself, too"
    )
    return parser


def default_contenders(args: argparse.Namespace) -> list[str]:
    """Of a study: the official computation as shipped and ours; the checkout first, if given."""
    names = ["official as shipped, eager", "ours, eager"]
    return names if args.official_checkout is None else [next(iter(CHECKOUTS)), *names]


def prepare(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Fills the defaults that depend on the device; ends the program on wrong use."""
    device_of(parser, args.device)
    try:
        if getattr(args, "official_checkout", None) is not None:
            Checkout.at(args.official_checkout)
        if "contenders" in args:
            args.contenders = args.contenders or default_contenders(args)
            study_cases("base", args, MASKINGS)
    except (FileNotFoundError, ValueError) as error:
        parser.error(str(error))
    if not on_gpu(args):  # there the host only builds and compares: with all it has
        torch.set_num_threads(args.threads)


def on_gpu(args: argparse.Namespace) -> bool:
    """Whether the study is of a GPU."""
    return torch.device(args.device).type == "cuda"


def study_cases(size: str, args: argparse.Namespace, maskings: Sequence[Masking]) -> list[Case]:
    """The chosen contenders with each masking; fp32 on a CPU."""
    checkout = None if args.official_checkout is None else str(args.official_checkout)
    found = [c for m in maskings for c in cases(size, m, args.contenders, checkout)]
    return in_studies_precision(found, args)


def in_studies_precision(found: list[Case], args: argparse.Namespace) -> list[Case]:
    """The cases as they are on a GPU; in fp32 on a CPU."""
    return found if on_gpu(args) else [case.in_precision("fp32") for case in found]


def workload_of(size: Size, args: argparse.Namespace, **fields: Any) -> Workload:
    """A workload of this size; `fields` are of MAEConfig or, where it has them, of Workload."""
    options: dict[str, Any] = {
        "batch": args.batch or (GPU_BATCH[size] if on_gpu(args) else CPU_BATCH),
        "seed": args.seed,
        "device": args.device,
    }
    for name in ("batch", "ratio", "decoder"):
        if name in fields:
            options[name] = fields.pop(name)
    config = replace(TINY, **fields) if args.tiny else MAEConfig.from_size(size, **fields)
    return Workload(config, **options)


def add_peaks(part: Record, args: argparse.Namespace, budget: Budget, tell: Tell = print) -> None:
    """Peak memory of each run, where that is a process of its own: on a CPU, under Linux."""
    if on_gpu(args) or not CLEAR.exists():
        return
    workload = Workload.from_description(part["workload"])
    for run in part["runs"]:
        if budget.left() <= 0:
            tell(f"{run['contender']}, {run['masking']}: no time was left for its memory")
            continue
        variant = Variant.from_dict(run["variant"])
        run["peak_memory"] = peak_memory(workload, variant, run["masking"], args.threads)
        peak = run["peak_memory"]["per_clip_bytes"] / 1e6
        tell(f"{run['contender']}, {run['masking']}: {peak:.0f} MB per clip{budget.told()}")


class Study:
    """A record that is written after each part, and its table and plot at the end."""

    def __init__(
        self, kind: str, name: str, args: argparse.Namespace, words: Sequence[str]
    ) -> None:
        self.budget = Budget(args.seconds)
        device = args.device.replace(":", "")
        self.path = results_folder(args) / f"{kind}-{name}-{device}-{stamp()}.json"
        self.record: Record = {
            "kind": kind,
            "name": name,
            **environment(args.device, command_of(kind, words)),
            "settings": {
                "repeats": args.repeats,
                "warmup": args.warmup,
                "seconds": args.seconds,
                "tiny": args.tiny,
                "interleaved": True,
            },
            "parts": [],
        }
        if getattr(args, "official_checkout", None) is not None:
            self.record["official_checkout"] = Checkout.at(args.official_checkout).describe()
            print(f"official code: {self.record['official_checkout']}", flush=True)

    def add(self, part: Record) -> None:
        """Adds a part that is whole, and writes the record."""
        self.record["parts"].append(part)
        write(self.record, self.path)

    def keep(self, part: Record) -> None:
        """Writes a part that is not whole yet: a command that is killed leaves that."""
        write({**self.record, "parts": [*self.record["parts"], part]}, self.path)

    def finish(self) -> int:
        """The table and the plot beside the JSON, made from it alone.

        Returns:
            The exit status: 1 where something differs from the official computation or crashed.
        """
        status = finish(self.record, self.path)
        reasons = [
            why
            for part in self.record["parts"]
            for by_name in part["failed"].values()
            for why in by_name.values()
        ]
        return status or int(any(why.startswith(("differs", CRASHED)) for why in reasons))
