"""Each op of a training step by itself: every backend that can run, other libraries' kernels
(benchmarks/ops/libraries.py), eager and compiled reference; timed by pytest-benchmark.

    python -m benchmarks ops --size small --batch 4 --threads 2            # CPU
    python -m benchmarks ops --device cuda --size base --batch 128 --out results
    pytest benchmarks/ops --size small --benchmark-json ops.json           # the same, by pytest

Each backend's result is compared with the reference's in fp64 before it is timed. One that is no
nearer to it than the same-dtype reference (plus a rounding; for matmuls, three times its error) is
reported as wrong and not timed. Code that is not this library's may also add up a long sum in plain
order, see `sum_in_order`. The share is that of the copy bandwidth measured in the same run, from
the bytes the op has to move at least, so work done twice counts against it. The record goes to
--out, or $OUT, or benchmarks/results. Options of pytest and pytest-benchmark may follow.

Not yet run on a GPU.
"""

from __future__ import annotations

import argparse
import math
import traceback
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.common.command import command_of, parser_of
from benchmarks.common.processor import processor_name
from benchmarks.measure.timing import Summary, times_in_turns
from benchmarks.ops.libraries import LIBRARIES, library_contenders
from benchmarks.ops.op_case import OpCase
from videomae_fast.models.config import SIZES
from videomae_fast.ops.registry import REGISTRY, Backend

# Less than pytest and pytest-benchmark print by themselves
PYTEST = [
    str(Path(__file__).parent), "-p", "no:cacheprovider", "-q", "-rfE",
    "--benchmark-columns=median,iqr,min,rounds", "--benchmark-sort=name",
]  # fmt: skip
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
    """The relative error that adding up `terms` numbers one by one in fp32 may give a sum.

    torch's eager sums and ours go in blocks, whose error hardly grows; others, torch.compile's
    among them, keep one running sum. Its roundings, each 2^-24 of the sum so far at most, are as
    good as random, so their share of the whole grows with the root of the number: about 0.3 of
    this function for terms of both signs, 0.6 for terms of one sign. A term that is left out, out
    of 4,000, is an error 4,000 times as large.
    """
    return 2.0**-24 * math.sqrt(terms)


def backends_of(name: str) -> dict[str, Backend]:
    """An op's backends, but for other libraries' attention, which attention-choice times."""
    found = REGISTRY[name].backends
    return {key: one for key, one in found.items() if not (one.composite and name == "attention")}


def contender_names(case: OpCase, *, compiled: bool) -> list[str]:
    """Who computes the case's op: its backends, other libraries and the compiled reference."""
    names = [*backends_of(case.op), *(each.name for each in LIBRARIES if each.op == case.op)]
    return names + ["reference, compiled"] * (compiled and case.compiles)


def contenders(
    case: OpCase,
    args: tuple[Any, ...],
    names: Sequence[str] | None = None,
    forward: tuple[Any, ...] | None = None,
) -> dict[str, Any]:
    """Of those named (default: all but the compiled reference) a callable, or why there is none.

    Args:
        args: of the op.
        forward: those of the forward op, where libraries need them; see :class:`OpCase`.
    """
    op = REGISTRY[case.op]
    found: dict[str, Any] = {}
    for name, backend in backends_of(case.op).items():
        reason = backend.why_not(*args)
        found[name] = partial(backend.run, *args) if reason is None else reason
    found |= library_contenders(case.op, args if forward is None else (args[0], *forward))
    if names is None:
        return found
    if "reference, compiled" in names:
        torch.compiler.reset()  # references of all ops share a line of code, and its limit
        function = torch.compile(op.backends["reference"].run, fullgraph=True)
        found["reference, compiled"] = partial(function, *args)
    return {name: found[name] for name in names}


def measure(
    case: OpCase,
    dtype: torch.dtype,
    device: torch.device,
    repeats: int,
    names: Sequence[str] | None = None,
) -> list[dict[str, Any]]:
    """Checks the contenders of a case, and times those that are right in turns.

    Args:
        repeats: rounds; 0 only checks.
        names: as :func:`contenders` takes them.

    Returns:
        A row per contender: its error and what is allowed; and its times (each of them, and their
        summary) where the error is small. A contender that can't run has the reason.
    """
    torch.manual_seed(0)
    args = case.args()
    forward = None
    if case.forward is not None:
        torch.manual_seed(0)
        forward = case.forward()
    truth = REGISTRY[case.op].backends["reference"].run(*exact(args))
    same_dtype = error(REGISTRY[case.op].backends["reference"].run(*args), truth)
    # Two orders of summing a matmul's products are each as good, and differ.
    # Where bytes are all that is given, the truth is in this dtype too, and rounded as much.
    rounded = torch.finfo(dtype).eps * (1 if same_dtype else 2)
    allowed = (3 if case.flop else 1.1) * same_dtype + rounded
    rows: list[dict[str, Any]] = []
    runs: dict[str, Callable[[], Any]] = {}
    for name, run in contenders(case, args, names, forward).items():
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
        if name not in REGISTRY[case.op].backends:
            row["allowed"] += sum_in_order(case.terms)
        row["correct"] = row["error"] <= row["allowed"]
        if row["correct"]:
            runs[name] = run
    taken = times_in_turns(runs, device, repeats, 2)
    for row in rows:
        if seconds := taken.get(row["backend"]):
            summary = Summary.of(seconds)
            row |= {"times": seconds, "seconds": asdict(summary)}
            row |= {"GB/s": case.bytes / summary.median / 1e9}
            row |= {"GFLOP/s": case.flop / summary.median / 1e9} if case.flop else {}
    return rows


def table(record: dict[str, Any]) -> str:
    """Markdown: µs, GB/s and share of the copy bandwidth, by op and backend."""
    copy = 1e3 * record["copy"]["TB/s"]
    work = record["workload"]
    lines = [
        f"{work['size']}, batch {work['batch']}, {work['dtype']}, {record['machine']['device']} "
        f"({processor_name(record['machine'])}, {record['machine']['threads']} threads); copy "
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


def add_options(add: Callable[..., object]) -> None:
    """The options of this benchmark; ``add`` is a parser's, argparse's or pytest's."""
    add("--device", default="cpu", help="default: cpu")
    add("--size", choices=SIZES, default="small", help="of the model; default: small")
    add("--batch", type=int, default=4, help="clips; default: 4")
    add("--dtype", choices=DTYPES, help="default: fp32 on a CPU, bf16 on a GPU")
    add("--threads", type=int, help="of the CPU; default: torch's")
    add("--repeats", type=int, default=20, help="rounds; default: 20")
    add("--ops", nargs="+", choices=sorted(REGISTRY), help="default: all")
    add("--no-compile", action="store_true", help="no compiled reference")
    add("--tiny", action="store_true", help="tiny shapes, to test this script")
    add("--out", type=Path, help="folder of the record; default: $OUT or benchmarks/results")


def arguments() -> argparse.ArgumentParser:
    """The parser of ``ops``, without the options of pytest."""
    parser = parser_of("ops", __doc__, out=False)
    add_options(parser.add_argument)
    parser.epilog = "Other options are pytest's: -k native, --benchmark-json FILE, ..."
    return parser


def main(argv: Sequence[str]) -> int:
    """Calls pytest.

    Returns:
        pytest's exit status: 0, or 1 where a contender is wrong or crashes.
    """
    import pytest

    words = list(argv)
    arguments().parse_known_args(words)  # for --help, and for errors in this command's words
    return int(pytest.main([*PYTEST, *words], plugins=[Caller(command_of("ops", words))]))


class Caller:
    """Tells the record by which command pytest was called."""

    def __init__(self, command: Sequence[str]) -> None:
        self.command = list(command)
