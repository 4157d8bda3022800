"""Each op of a training step by itself: every backend that can run, other libraries' kernels
(benchmarks/ops/libraries.py), eager and compiled reference.

    python -m benchmarks ops --size small --batch 4 --threads 2            # CPU
    python -m benchmarks ops --device cuda --size base --batch 128 --out results

Each backend's result is compared with the reference's in fp64 before it is timed; one that is no
nearer to it than the same-dtype reference (plus a rounding; for matmuls, three times its error) is
reported as wrong and not timed. Code that is not this library's may also add up a long sum in plain
order, see `sum_in_order`. The
share is that of the copy bandwidth measured in the same run, from the bytes the op has to move at
least, so work done twice counts against it. The folder is --out, or $OUT, or benchmarks/results.

Not yet run on a GPU.
"""

from __future__ import annotations

import argparse
import math
import os
import traceback
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.common.record import RESULTS, environment, stamp, write
from benchmarks.common.workload import Workload
from benchmarks.gpu.ceilings import TINY, copy_bandwidth
from benchmarks.measure.timing import Summary, times_in_turns
from benchmarks.ops.cases import OpCase, op_cases
from benchmarks.ops.libraries import library_contenders
from videomae_fast import MAEConfig
from videomae_fast.models.config import SIZES
from videomae_fast.ops.registry import REGISTRY

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def tensors(result: Any) -> list[Tensor]:
    """The tensors of an op's result that have elements."""
    found = [result] if isinstance(result, Tensor) else list(result)
    return [tensor for tensor in found if tensor.numel()]


def exact(args: tuple[Any, ...]) -> tuple[Any, ...]:
    """The arguments in fp64; indices, frames and settings as they are."""

    def raised(arg: Any) -> Any:
        if isinstance(arg, Tensor) and arg.is_floating_point():
            return arg.double()
        return torch.float64 if isinstance(arg, torch.dtype) else arg

    return tuple(raised(arg) for arg in args)


def error(result: Any, truth: Any) -> float:
    """The largest relative error of the result's tensors, each as a whole."""
    worst = 0.0
    for one, true in zip(tensors(result), tensors(truth), strict=True):
        size = true.double().norm().clamp(min=1e-30)
        relative = float((one.double() - true.double()).norm() / size)
        worst = max(worst, relative if relative == relative else float("inf"))
    return worst


def sum_in_order(terms: int) -> float:
    """What adding up `terms` numbers one by one in fp32 may do to the relative error of a sum.

    torch's eager sums and ours go in blocks, whose error hardly grows; others, torch.compile's
    among them, keep one running sum. Its roundings, each 2^-24 of the sum so far at most, are as
    good as random, so their share of the whole grows with the root of the number: about 0.3 of
    this function for terms of both signs, 0.6 for terms of one sign. A term that is left out, out
    of 4,000, is an error 4,000 times as large.
    """
    return 2.0**-24 * math.sqrt(terms)


def contenders(case: OpCase, args: tuple[Any, ...], *, compiled: bool) -> dict[str, Any]:
    """Callables by name, and why the others can't run."""
    op = REGISTRY[case.op]
    found: dict[str, Any] = {}
    for name, backend in op.backends.items():
        if backend.composite:  # other libraries' attention: attention-choice times it
            continue
        reason = backend.why_not(*args)
        found[name] = partial(backend.run, *args) if reason is None else reason
    found |= library_contenders(case.op, args)
    if compiled:
        function = torch.compile(op.backends["reference"].run, fullgraph=True)
        found["reference, compiled"] = partial(function, *args)
    return found


def measure(
    case: OpCase, dtype: torch.dtype, device: torch.device, repeats: int, *, compiled: bool
) -> list[dict[str, Any]]:
    """A row per backend: its error, and its times where the error is small."""
    torch.manual_seed(0)
    args = case.args()
    truth = REGISTRY[case.op].backends["reference"].run(*exact(args))
    same_dtype = error(REGISTRY[case.op].backends["reference"].run(*args), truth)
    # Two orders of summing a matmul's products are each as good, and differ.
    allowed = (3 if case.flop else 1.1) * same_dtype + torch.finfo(dtype).eps
    rows: list[dict[str, Any]] = []
    runs: dict[str, Callable[[], Any]] = {}
    ours = REGISTRY[case.op].backends
    for name, run in contenders(case, args, compiled=compiled and case.compiles).items():
        row: dict[str, Any] = {"op": case.op, "where": case.where, "backend": name}
        rows.append(row)
        if isinstance(run, str):
            row["unavailable"] = run
            continue
        try:
            result = run()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
        except Exception as failure:  # a compiler's error, say: the others go on
            traceback.print_exception(failure)
            told = (str(failure).splitlines() or [""])[0]
            row |= {"failed": f"{type(failure).__name__}: {told}", "correct": False}
            continue
        compared = truth[: len(result)] if isinstance(result, tuple) else truth
        row |= {"error": error(result, compared), "allowed": allowed}
        if name not in ours:
            row["allowed"] += sum_in_order(case.terms)
        row["correct"] = row["error"] <= row["allowed"]
        if row["correct"]:
            runs[name] = run
    taken = times_in_turns(runs, device, repeats, 2)
    for row in rows:
        if seconds := taken.get(row["backend"]):
            summary = Summary.of(seconds)
            row |= {"seconds": asdict(summary), "GB/s": case.bytes / summary.median / 1e9}
            row |= {"GFLOP/s": case.flop / summary.median / 1e9} if case.flop else {}
    return rows


def table(record: dict[str, Any]) -> str:
    """Markdown: µs, GB/s and share of the copy bandwidth, by op and backend."""
    copy = 1e3 * record["copy"]["TB/s"]
    work = record["workload"]
    lines = [
        f"{work['size']}, batch {work['batch']}, {work['dtype']}, {record['machine']['device']} "
        f"({record['machine']['cpu']}, {record['machine']['threads']} threads); copy "
        f"{copy:.0f} GB/s; {record['date'][:10]}",
        "",
        "| op | backend | µs | GB/s | of copy | GFLOP/s | error (allowed) |",
        "|-|-|-:|-:|-:|-:|-:|",
    ]
    for row in record["results"]:
        if "unavailable" in row:
            continue
        name = f"{row['op']} ({row['where']})"
        if "failed" in row:
            lines.append(f"| {name} | {row['backend']} | FAILED: {row['failed']} | | | | |")
            continue
        checked = f"{row['error']:.1e} ({row['allowed']:.1e})"
        if not row["correct"]:
            lines.append(f"| {name} | {row['backend']} | WRONG | | | | {checked} |")
            continue
        lines.append(
            f"| {name} | {row['backend']} | {1e6 * row['seconds']['median']:,.0f} "
            f"| {row['GB/s']:,.1f} | {row['GB/s'] / copy:.0%} "
            f"| {format(row['GFLOP/s'], ',.0f') if 'GFLOP/s' in row else ''} | {checked} |"
        )
    return "\n".join(lines)


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks ops", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--device", default="cpu", help="default: cpu")
    parser.add_argument("--size", choices=SIZES, default="small")
    parser.add_argument("--batch", type=int, default=4, help="clips; default: 4")
    parser.add_argument("--dtype", choices=DTYPES, help="default: fp32 on a CPU, bf16 on a GPU")
    parser.add_argument("--threads", type=int, help="of the CPU; default: torch's")
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--ops", nargs="+", choices=sorted(REGISTRY), help="default: all")
    parser.add_argument("--no-compile", action="store_true", help="no compiled reference")
    parser.add_argument("--tiny", action="store_true", help="tiny shapes, to test this script")
    parser.add_argument("--out", type=Path, help="folder; default: $OUT or benchmarks/results")
    return parser


def main(argv: Sequence[str]) -> int:
    words = list(argv)
    parser = arguments()
    args = parser.parse_args(words)
    device = torch.device(args.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        parser.error("no GPU here: --device cpu")
    if args.threads:
        torch.set_num_threads(args.threads)
    dtype = args.dtype or ("bf16" if device.type == "cuda" else "fp32")
    config = TINY if args.tiny else MAEConfig.from_size(args.size)
    workload = Workload(config, args.batch, device=args.device)
    size = 2**12 if args.tiny else 2**30 if device.type == "cuda" else 2**26
    record: dict[str, Any] = {
        "kind": "op_speed",
        **environment(args.device, ["python", "-m", "benchmarks", "ops", *words]),
        "workload": {"size": args.size, "batch": args.batch, "dtype": dtype},
        "copy": copy_bandwidth(device, size, args.repeats, 3),
        "results": [],
    }
    out = args.out or Path(os.environ.get("OUT", RESULTS))
    path = out / f"op-speed-{device.type}-{args.size}-{dtype}-{stamp()}.json"
    for case in op_cases(workload, DTYPES[dtype]):
        if args.ops is None or case.op in args.ops:
            record["results"] += measure(
                case, DTYPES[dtype], device, args.repeats, compiled=not args.no_compile
            )
            write(record, path)  # what is done stays, whatever comes
    text = table(record)
    path.with_suffix(".md").write_text(text + "\n", encoding="utf-8")
    print(text)
    print(f"written: {path}")
    return 0 if all(row.get("correct", True) for row in record["results"]) else 1
