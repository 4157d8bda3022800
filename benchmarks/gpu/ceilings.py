"""What a GPU can do, and what the baselines make of it.

    python -m benchmarks ceilings --size base --batch 128 --out results
    python -m benchmarks ceilings --parts baselines --size giant --variants strong "ours, compiled"
    python -m benchmarks ceilings --parts baselines --official-checkout VideoMAEv2 --out results

Measures copy bandwidth, the bf16 matmul rate of the linear layers at each model's width, and the
training steps of :mod:`benchmarks.studies.baselines`. Each part is written as soon as it is
done. The folder is --out, or $OUT. Attention: :mod:`benchmarks.ops.attention_choice`.

Its logic is tested on the CPU with tiny shapes (``--device cpu --tiny``); the numbers of such a run
say nothing.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from benchmarks.common.command import command_of, device_of, named_folder, parser_of
from benchmarks.common.record import environment, read, write
from benchmarks.common.workload import MASKINGS, Workload
from benchmarks.common.workload import TINY as TINY  # whom `launch_choice` has it from
from benchmarks.contenders.checkout import Checkout
from benchmarks.measure.cases import CRASHED, Keep, measure, one_by_one
from benchmarks.measure.timing import Budget, copy_bandwidth, rated, times
from benchmarks.report.tables import baseline_table
from benchmarks.studies.baselines import cases
from videomae_fast import MAEConfig

PARTS = ("copy", "matmul", "baselines")
WIDTHS = (384, 512, 768, 1024, 1280, 1408)


def matmul_rates(
    device: torch.device, widths: Sequence[int], rows: int, repeats: int, warmup: int
) -> list[dict[str, Any]]:
    """TFLOP/s of the linear layers of a block, bf16, on normal random data."""
    found = []
    for width in widths:
        hidden = 4 * width
        layers = {
            "qkv": (width, 3 * width),
            "proj": (width, width),
            "fc1": (width, hidden),
            "fc2": (hidden, width),
        }
        for name, (inner, outer) in layers.items():
            x = torch.randn(rows, inner, dtype=torch.bfloat16, device=device)
            weight = torch.randn(outer, inner, dtype=torch.bfloat16, device=device)
            seconds = times(partial(F.linear, x, weight), device, repeats, warmup)
            rate = rated(seconds, 2 * rows * inner * outer, "TFLOP/s")
            found.append({"width": width, "layer": name, "rows": rows, **rate})
    return found


def arguments() -> argparse.ArgumentParser:
    """The parser of ``ceilings``."""
    shared: dict[str, Any] = {"device": "cuda", "batch": 128, "repeats": 20, "warmup": 5}
    parser = parser_of("ceilings", __doc__, tiny=True, size="base", seconds=540.0, **shared)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--masking", nargs="+", choices=MASKINGS, default=["dual"])
    parser.add_argument("--variants", nargs="+", help="baselines by name; default: all")
    parser.add_argument(
        "--official-checkout", type=Path, help="folder of the official code: also time it itself"
    )
    parser.add_argument(
        "--one-by-one",
        action=argparse.BooleanOptionalAction,
        help="build a baseline when the one before is gone, instead of timing them in turns; "
        "default: on a GPU",
    )
    return parser


def run_part(part: str, args: argparse.Namespace, keep: Keep) -> Any:
    """What one part measures, as plain values; `keep` takes what there is of it so far."""
    device = torch.device(args.device)
    often = (args.repeats, args.warmup)
    if part == "copy":
        sizes = [2**12] if args.tiny else [2**28, 2**30, 2**32]
        return [copy_bandwidth(device, size, *often) for size in sizes]
    if part == "matmul":
        rows = [8] if args.tiny else [args.batch * 160, args.batch * 944]
        widths = (16,) if args.tiny else WIDTHS
        return [rate for n in rows for rate in matmul_rates(device, widths, n, *often)]
    config = TINY if args.tiny else MAEConfig.from_size(args.size)
    workload = Workload(config, args.batch, device=args.device)
    found: dict[str, Any] = {"checks": [], "runs": [], "failed": {}}
    checkout = None
    if args.official_checkout is not None:
        checkout = str(args.official_checkout)
        found["official_checkout"] = Checkout.at(args.official_checkout).describe()
        print(f"official code: {found['official_checkout']}", flush=True)
    budget = Budget(args.seconds)
    for i, masking in enumerate(args.masking):
        one = (one_by_one if args.one_by_one else measure)(
            workload,
            cases(args.size, masking, args.variants, checkout),
            repeats=args.repeats,
            warmup=args.warmup,
            budget=budget.share(len(args.masking) - i),
            keep=partial(_keep_both, keep, found),
        )
        found = _both(found, one)
    return found


def _both(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    """What was measured with two maskings, as one record."""
    joined = {name: first[name] + second[name] for name in ("checks", "runs")}
    return {**first, **joined, "failed": first["failed"] | second["failed"]}


def _keep_both(keep: Keep, first: dict[str, Any], second: dict[str, Any]) -> None:
    keep(_both(first, second))


def told(record: dict[str, Any]) -> str:
    """The part's results, in lines."""
    if record["kind"] == "baselines":
        ran = [run["contender"] for run in record["runs"]]
        ours = next((name for name in reversed(ran) if name.startswith("ours")), "ours, eager")
        return baseline_table(record, ours)
    if record["kind"] == "copy":
        return "\n".join(f"{row['bytes']:,} B: {row['TB/s']:.2f} TB/s" for row in record["results"])
    return "\n".join(
        f"{row['layer']} of width {row['width']}, {row['rows']} rows: {row['TFLOP/s']:.0f} TFLOP/s"
        for row in record["results"]
    )


def main(argv: Sequence[str]) -> int:
    """Measures the parts.

    Returns:
        1 where a baseline differs from the official computation or crashes.
    """
    parser = arguments()
    args = parser.parse_args(argv)
    out = named_folder(parser, args)
    device = device_of(parser, args.device, "--device cpu --tiny tests the script without one")
    if args.official_checkout is not None:
        try:
            Checkout.at(args.official_checkout)
        except FileNotFoundError as error:
            parser.error(str(error))
    if args.one_by_one is None:
        args.one_by_one = device.type == "cuda"
    wrong = False
    for part in args.parts:
        record = {
            "kind": part,
            **environment(args.device, command_of("ceilings", argv)),
            "settings": {
                "repeats": args.repeats,
                "warmup": args.warmup,
                "tiny": args.tiny,
                "interleaved": not args.one_by_one,
            },
            "workload": {"size": args.size, "batch": args.batch, "device": args.device},
        }
        start = time.perf_counter()
        name = f"baselines-{args.size}-batch{args.batch}" if part == "baselines" else part
        path = out / f"{name}.json"

        def keep(found: dict[str, Any], record: dict[str, Any] = record, path: Path = path) -> None:
            write({**record, **found}, path)  # what is done stays, whatever comes

        found = run_part(part, args, keep)
        keep(found if isinstance(found, dict) else {"results": found})
        whole = read(path)
        print(f"\n{told(whole)}\n", flush=True)
        print(f"{part}: {time.perf_counter() - start:.0f} s, written: {path}", flush=True)
        reasons = [why for named in whole.get("failed", {}).values() for why in named.values()]
        wrong = wrong or any(why.startswith((CRASHED, "differs")) for why in reasons)
    return int(wrong)
