"""Our training step kernel by kernel, with the time that is modelled for it beside each.

    python -m benchmarks kernel-profile --size base --batch 128 --out results  # on a GPU
    python -m benchmarks kernel-profile --size giant --model H200              # the model alone

Three steps run under torch's profiler while :class:`benchmarks.gpu.step_model.Recorder` notes what
each op has to move and to compute. A kernel belongs to the op that launched it. The ceilings are
those of this card, measured just before; --model needs no GPU and takes those of a card of that
name. On a CPU, which has no kernels, the rows are the ops themselves.

The profiler and the recorder slow the host down, not the kernels: the step's own time is taken
without them, and what it is longer than its kernels is the host's doing.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import tempfile
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.common.command import command_of, device_of, named_folder, parser_of
from benchmarks.common.record import environment, write
from benchmarks.common.workload import TINY, Workload
from benchmarks.contenders.base import Contender, Precision, Variant
from benchmarks.contenders.build import build
from benchmarks.gpu.calls import KNOWN, LABEL, Call, Ceilings, Recorder
from benchmarks.gpu.step_model import modelled_step, step
from benchmarks.measure.timing import Summary, copy_bandwidth, rated, timed_step, times
from benchmarks.report.tables import mfu
from videomae_fast import MAEConfig
from videomae_fast.models.flops import flops
from videomae_fast.models.fp8 import MINIMUM_WIDTH

STEPS = 3
KERNELS = ("kernel", "gpu_memcpy", "gpu_memset")  # categories of a trace
LAUNCHES = ("cuda_runtime", "cuda_driver")


class ProfileError(RuntimeError):
    """A trace that can't be set beside the calls."""


@dataclass(frozen=True)
class Timed:
    """One kernel's run: which call launched it (None: not known), its name, its seconds."""

    call: int | None
    name: str
    seconds: float


def kernels_of(events: Iterable[dict[str, Any]]) -> list[Timed]:
    """The kernels of a Chrome trace, each with the number of the labelled call it belongs to.

    A kernel has the correlation number of its launch; the launch lies within a labelled range of
    the same thread. Where that says nothing, the kernel has the number of torch's op.
    """
    ranges: dict[Any, list[tuple[float, float, int]]] = defaultdict(list)
    launched: dict[Any, tuple[Any, float]] = {}
    ops: dict[Any, tuple[Any, float]] = {}
    ran = []
    for event in events:
        kind, told = event.get("cat"), event.get("args", {})
        if kind == "user_annotation" and str(event["name"]).startswith(LABEL):
            number = int(event["name"].removeprefix(LABEL))
            begin, length = float(event["ts"]), float(event["dur"])
            ranges[event["pid"], event["tid"]].append((begin, begin + length, number))
        elif kind in LAUNCHES and "correlation" in told:
            launched[told["correlation"]] = ((event["pid"], event["tid"]), float(event["ts"]))
        elif kind == "cpu_op" and "External id" in told:
            ops[told["External id"]] = ((event["pid"], event["tid"]), float(event["ts"]))
        elif kind in KERNELS:
            ran.append(event)
    for found in ranges.values():
        found.sort()
    timed = []
    for event in ran:
        told = event["args"]
        call = None
        for where in (launched.get(told.get("correlation")), ops.get(told.get("External id"))):
            if call is None and where is not None:
                call = _within(ranges[where[0]], where[1])
        timed.append(Timed(call, str(event["name"]), float(event["dur"]) / 1e6))
    return timed


def ops_of(events: Iterable[dict[str, Any]]) -> list[Timed]:
    """On a CPU: the labelled ranges themselves, as if each were a kernel."""
    return [
        Timed(int(event["name"].removeprefix(LABEL)), "on the CPU", float(event["dur"]) / 1e6)
        for event in events
        if event.get("cat") == "user_annotation" and str(event["name"]).startswith(LABEL)
    ]


def _within(ranges: Sequence[tuple[float, float, int]], moment: float) -> int | None:
    """The innermost range around a moment: the last that began before it, of those still open."""
    place = bisect_right(ranges, (moment, float("inf"), 0))
    for begin, end, number in reversed(ranges[max(0, place - 8) : place]):
        if begin <= moment <= end:
            return number
    return None


def groups(calls: Sequence[Call], timed: Sequence[Timed], card: Ceilings, steps: int) -> list[Any]:
    """A row per kind of call (op, shapes, phase) with its kernels, longest first.

    Times are microseconds of a whole step, launches those of a step.

    Raises:
        ProfileError: a kernel of a call that there is not.
    """
    rows: dict[tuple[str, str, str], dict[str, Any]] = {}
    for call in calls:
        row = rows.setdefault(
            (call.op, call.shapes, call.phase),
            {"op": call.op, "shapes": call.shapes, "phase": call.phase, "calls": 0, "bytes": 0}
            | {"flop": 0, "floor": 0.0, "modelled": 0.0, "measured": 0.0, "kernels": {}},
        )
        row["calls"] += 1
        row["bytes"] += call.bytes
        row["flop"] += call.flop
        row["floor"] += 1e6 * call.floor(card)
        row["modelled"] += 1e6 * call.modelled(card)
    nowhere: dict[str, Any] = {
        "op": "(launched outside of any op)", "shapes": "", "phase": "", "calls": 0, "bytes": 0,
        "flop": 0, "floor": 0.0, "modelled": 0.0, "measured": 0.0, "kernels": {},
    }  # fmt: skip
    for kernel in timed:
        row = nowhere
        if kernel.call is not None:
            if kernel.call >= len(calls):
                raise ProfileError(f"a kernel of call {kernel.call}; there are {len(calls)}")
            call = calls[kernel.call]
            row = rows[call.op, call.shapes, call.phase]
        one = row["kernels"].setdefault(kernel.name, {"launches": 0.0, "measured": 0.0})
        one["launches"] += 1 / steps
        one["measured"] += 1e6 * kernel.seconds / steps
        row["measured"] += 1e6 * kernel.seconds / steps
    found = [*rows.values(), *([nowhere] if nowhere["kernels"] else [])]
    return sorted(
        (row for row in found if row["kernels"] or row["modelled"]),
        key=lambda row: -max(row["measured"], row["modelled"]),
    )


def profiled(contender: Contender, trace: Path, steps: int = STEPS) -> tuple[list[Call], list[Any]]:
    """The calls of a step, and the trace's events over so many steps.

    Raises:
        ProfileError: the steps did not do the same.
    """
    for _ in range(2):
        timed_step(contender, phases=False)
    activities = [ProfilerActivity.CPU]
    if contender.device.type == "cuda":
        activities.append(ProfilerActivity.CUDA)
    recorded = []
    with profile(activities=activities) as profiler:
        for _ in range(steps):
            recorded.append(step(contender, Recorder(labelled=True)))
        if contender.device.type == "cuda":
            torch.cuda.synchronize(contender.device)
    if any(calls != recorded[0] for calls in recorded):
        raise ProfileError("the steps differ: their kernels can't be set beside one list of calls")
    profiler.export_chrome_trace(str(trace))
    return recorded[0], json.loads(trace.read_text(encoding="utf-8"))["traceEvents"]


def measured_ceilings(device: torch.device, name: str, *, tiny: bool) -> Ceilings:
    """Copy bandwidth and bf16 matmul rate of this device, now."""
    copy = copy_bandwidth(device, 2**16 if tiny else 2**31, 10, 3)["TB/s"]
    side = 64 if tiny else 8192
    a, b = (torch.randn(side, side, dtype=torch.bfloat16, device=device) for _ in range(2))
    matmul = rated(times(lambda: a @ b, device, 10, 3), 2 * side**3, "TFLOP/s")["TFLOP/s"]
    return Ceilings(name, 1e12 * copy, 1e12 * matmul)


def short(kernel: str) -> str:
    """A kernel's name without its return type, namespaces and arguments."""
    name = re.sub(r"\(anonymous namespace\)::", "", kernel).removeprefix("void ")
    name = re.sub(r"<.*", "", name).split("(")[0]
    return name.rpartition("::")[2] or kernel


GAPS = 6


def told(record: dict[str, Any], rows: int) -> str:
    """A row per kernel, longest first; an op's modelled time stands at its longest kernel.

    Then the ops that are furthest from their model, and the whole step.
    """
    card = record["ceilings"]
    lines = [
        f"{card['name']}: copy {card['copy'] / 1e12:.2f} TB/s, bf16 matmul "
        f"{card['matmul'] / 1e12:.0f} TFLOP/s; ViT-{record['workload']['size']}, batch "
        f"{record['workload']['batch']}; µs of a step:",
        f"{'measured':>9} {'modelled':>9} {'floor':>9} {'launches':>8}  kernel | op | shapes",
    ]
    printed = 0
    for group in record["groups"]:
        kernels = sorted(group["kernels"].items(), key=lambda item: -item[1]["measured"])
        for i, (name, one) in enumerate(kernels or [("", {"measured": 0, "launches": 0})]):
            of_op = f"{group['modelled']:9.1f} {group['floor']:9.1f}" if i == 0 else " " * 19
            lines.append(
                f"{one['measured']:9.1f} {of_op} {one['launches']:8.0f}  {short(name)[:44]} | "
                f"{_called(group)}"
            )
            printed += 1
        if printed >= rows:
            lines.append(f"… and {len(record['groups'])} kinds of calls in all: in the file")
            break
    if record["step"] is not None:
        lines.append("furthest from the model, measured - modelled:")
        by_gap = sorted(record["groups"], key=lambda row: row["modelled"] - row["measured"])
        lines += [
            f"{row['measured'] - row['modelled']:9.1f}  {_called(row)}" for row in by_gap[:GAPS]
        ]
    return "\n".join([*lines, _whole(record)])


def _called(group: dict[str, Any]) -> str:
    op = group["op"].removeprefix("aten::").removeprefix("videomae_fast::")
    return f"{op} ×{group['calls']} {group['phase']} | {group['shapes'][:60]}"


def _whole(record: dict[str, Any]) -> str:
    """The step in a line."""
    total, step_found = record["total"], record["step"]
    if step_found is None:
        return f"modelled {total['modelled'] / 1e3:.2f} ms, floor {total['floor'] / 1e3:.2f} ms"
    share = mfu(record, step_found)
    return (
        f"step {1e3 * step_found['seconds']['median']:.2f} ms, its kernels "
        f"{total['measured'] / 1e3:.2f}, modelled {total['modelled'] / 1e3:.2f}, floor "
        f"{total['floor'] / 1e3:.2f} ms; {total['launches']:.0f} launches"
    ) + ("" if share is None else f"; MFU {share:.1%}")


def totals(found: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Of all rows, microseconds; and the launches of a step."""
    sums = {name: sum(row[name] for row in found) for name in ("measured", "modelled", "floor")}
    launches = sum(one["launches"] for row in found for one in row["kernels"].values())
    return {**sums, "launches": launches}


def measure(args: argparse.Namespace, workload: Workload, folder: Path) -> dict[str, Any]:
    """What a record of a profile holds besides its environment."""
    device = torch.device(args.device)
    on_gpu = device.type == "cuda"
    precision: Precision = "bf16" if on_gpu or args.fp8 else "fp32"
    variant = Variant("ours", precision=precision, lean=True, shadow_weights=on_gpu, fp8=args.fp8)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)
    card = measured_ceilings(device, name, tiny=args.tiny)
    contender = build("ours, eager", variant, workload, "dual")
    trace = folder / f"trace-{args.size}.json"
    calls, events = profiled(contender, trace)
    found = groups(
        calls, kernels_of(events) if device.type == "cuda" else ops_of(events), card, STEPS
    )
    seconds = [timed_step(contender, phases=False)["total"] for _ in range(args.repeats)]
    official = sum(flops(workload.config, workload.spec("dual"), "official").values())
    rate = official * 6 * workload.batch / statistics.median(seconds)
    return {
        "ceilings": asdict(card),
        "step": {"seconds": asdict(Summary.of(seconds)), "official_flop_per_second": rate},
        "groups": found,
        "total": totals(found),
    }


def modelled(args: argparse.Namespace, workload: Workload) -> dict[str, Any]:
    """The same without a run: calls by fake tensors, times by the model alone."""
    (card,) = (known for known in KNOWN if known.name == args.model)
    found = groups(modelled_step(workload, "dual", fp8=args.fp8), [], card, 1)
    return {"ceilings": asdict(card), "step": None, "groups": found, "total": totals(found)}


def arguments() -> argparse.ArgumentParser:
    """The parser of ``kernel-profile``."""
    shared: dict[str, Any] = {"device": "cuda", "size": "base", "batch": 128, "repeats": 5}
    parser = parser_of("kernel-profile", __doc__, tiny=True, **shared)
    parser.add_argument("--rows", type=int, default=40, help="kernels printed; default: 40")
    parser.add_argument(
        "--model", choices=[card.name for card in KNOWN], help="no run: the model, for this card"
    )
    parser.add_argument(
        "--fp8", action="store_true", help="qkv, fc1 and fc2 of blocks at least 1280 wide in fp8"
    )
    return parser


def main(argv: Sequence[str]) -> int:
    """Profiles the step, or models it.

    Returns:
        0.
    """
    parser = arguments()
    args = parser.parse_args(argv)
    unwritten = args.model and args.out is None and not os.environ.get("OUT")
    out = None if unwritten else named_folder(parser, args)
    device = "cpu" if args.model else args.device
    device_of(parser, device, "--model H200 models the step without one")
    config = TINY if args.tiny else MAEConfig.from_size(args.size)
    if args.fp8 and not args.tiny and config.width < MINIMUM_WIDTH:
        parser.error(f"--fp8 is for blocks at least {MINIMUM_WIDTH} wide: --size huge or giant")
    workload = Workload(config, args.batch, device=device)
    record = {
        "kind": "profile by kernel",
        **environment(device, command_of("kernel-profile", argv)),
        "workload": {"size": args.size, **workload.describe()},
        "settings": {"steps": STEPS, "tiny": args.tiny, "fp8": args.fp8},
    }
    if args.model:
        record |= modelled(args, workload)
    else:
        with tempfile.TemporaryDirectory() as folder:
            record |= measure(args, workload, Path(folder))
    print(told(record, args.rows))
    if out is not None:
        kind = "model" if args.model else "kernels"
        kind += "-fp8" if args.fp8 else ""
        path = write(record, out / f"{kind}-{args.size}-batch{args.batch}.json")
        print(f"written: {path}")
    return 0
