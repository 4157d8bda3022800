"""Other launches of the Triton kernels: block sizes, warps and stages, at a model's shapes.

    python -m benchmarks launch-choice --size base --batch 128 --out results
    python -m benchmarks launch-choice --size giant --ops attention attention_backward

The launch constants of kernels/ were chosen without a GPU, by registers, spills and bytes. Here
each is changed by itself, and some together; what computes the same is timed in turns with the
launch as it is. The record says which was how fast, and changes nothing: a better constant is
written into its file by hand, with the record as the reason. The share is that of the copy
bandwidth measured in the same run, from the bytes the op has to move at least.

Triton compiles one kernel at a time; before the GPU is used, processes of their own compile all of
them for it, into Triton's cache.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from benchmarks.common.launches import Launch, recorded
from benchmarks.common.record import environment, write
from benchmarks.common.workload import Workload
from benchmarks.gpu.ceilings import TINY
from benchmarks.measure.timing import Summary, copy_bandwidth, times_in_turns
from benchmarks.ops.cases import op_cases
from benchmarks.ops.op_case import OpCase
from benchmarks.ops.speed import DTYPES, error, exact
from videomae_fast import MAEConfig
from videomae_fast.models.config import SIZES
from videomae_fast.ops.registry import REGISTRY

AS_IT_IS = "as it is"


@dataclass(frozen=True)
class Change:
    """Another value of a kernels' module attribute, and of those in `more`."""

    name: str
    module: str
    attribute: str
    value: Any
    more: tuple[Change, ...] = ()

    @contextmanager
    def made(self) -> Iterator[None]:
        module = import_module(f"videomae_fast.kernels.{self.module}")
        before = getattr(module, self.attribute)
        setattr(module, self.attribute, self.value)
        try:
            with ExitStack() as stack:
                for change in self.more:
                    stack.enter_context(change.made())
                yield
        finally:
            setattr(module, self.attribute, before)


# Fields of a module's LAUNCH, and what to try of each; what it has now is left out.
FIELDS: dict[str, tuple[str, dict[str, tuple[int, ...]]]] = {
    "add_layer_norm": ("add_layer_norm", {"num_warps": (2, 4), "programs": (8, 16)}),
    "add_layer_norm_backward": ("add_layer_norm", {}),
    "bias_gelu": ("bias_gelu", {"rows": (8, 32), "columns": (512,), "stages": (3,)}),
    "bias_gelu_backward": ("bias_gelu", {}),
    "patch_gather": ("patch_gather", {"pixels": (256,), "num_warps": (1, 2, 8)}),
    "pixel_mse": ("pixel_mse", {"values": (1024, 4096), "num_warps": (2, 4)}),
    "pixel_mse_with_gradient": ("pixel_mse", {"values": (1024, 4096), "num_warps": (2, 4)}),
    "token_gather": ("token_gather", {"rows": (8, 32), "columns": (128,), "num_warps": (8,)}),
    "token_scatter": ("token_gather", {"scatter_columns": (64,), "list_block": (64, 256)}),
    "decoder_assembly": ("decoder_assembly", {"rows": (8, 32), "num_warps": (8,)}),
    "decoder_assembly_backward": ("decoder_assembly", {"rows": (8, 32), "programs": (512, 2048)}),
    "append_rows": ("append_rows", {"rows": (8, 32), "columns": (256,), "num_warps": (8,)}),
    "append_rows_backward": (
        "append_rows",
        {"backward_rows": (16, 64), "columns": (64,), "entries": (32,), "list_block": (256,)},
    ),
    "roi_features": (
        "roi_features",
        {"values": (512, 2048), "channels": (16, 64), "columns": (8,), "num_warps": (2, 8)},
    ),
    "roi_features_backward": (
        "roi_features",
        {"channels_backward": (64, 256), "columns": (8,), "num_warps": (2, 8)},
    ),
    "crop_resize": ("crop_resize", {"rows": (2, 8), "bytes": (256,), "num_warps": (2, 8)}),
}
# How the sums over programs are added up: fewer programs, fewer rows in flight.
SUMS = {"columns.rows": 32, "columns.columns": 64, "columns.num_warps": 4}
# Several fields together; "columns.rows" is a field of another module, of columns.py.
TOGETHER: dict[str, tuple[Mapping[str, int], ...]] = {
    # The copies of a tile begin after the tile before it is computed: two stages overlap nothing.
    "add_layer_norm_backward": (
        SUMS,
        {"keep_weight": True},
        {"backward_lane_values": 64, "keep_weight": True},
        {"backward_stages": 3},
        {"backward_stages": 3, "backward_lane_values": 64},
        {"backward_stages": 4, "backward_lane_values": 64},
        {"backward_stages": 3, "backward_lane_values": 64, "backward_warps": 8},
        {"backward_stages": 4, "backward_lane_values": 64, "backward_warps": 8},
        {"backward_stages": 4, "backward_lane_values": 64, "backward_warps": 16},
    ),
    "bias_gelu_backward": (
        SUMS,
        {"backward_rows": 4},
        {"backward_stages": 3},
        {"backward_stages": 4},
        {"backward_stages": 3, "backward_rows": 4},
        {"backward_stages": 4, "backward_rows": 4},
        {"backward_stages": 3, "columns": 128},
        {"backward_stages": 3, "backward_rows": 16},
    ),
}
# (queries, keys, warps, stages) of the long sequences' kernels: forward, backward of queries, of
# keys
FLASH: tuple[tuple[tuple[int, int, int, int], ...], ...] = (
    ((128, 64, 8, 2), (128, 128, 8, 2), (128, 64, 8, 3), (128, 64, 4, 3), (64, 128, 4, 2)),
    ((128, 32, 8, 3), (64, 64, 4, 2), (64, 32, 4, 3), (128, 64, 4, 2)),
    ((64, 128, 8, 2), (32, 64, 4, 3), (32, 64, 4, 2), (64, 64, 4, 2), (32, 128, 4, 2)),
)
TRIED = ("attention", "attention_backward", "packed_attention_backward", *FIELDS)


def changes(case: OpCase, dim: int = 64) -> list[Change]:
    """What to try for a case; `dim`: of the encoder's heads."""
    if case.op in FIELDS:
        name, fields = FIELDS[case.op]
        launch = import_module(f"videomae_fast.kernels.{name}").LAUNCH
        alone = [
            Change(f"{field} {value}", name, "LAUNCH", replace(launch, **{field: value}))
            for field, values in fields.items()
            for value in values
            if value != getattr(launch, field)
        ]
        together = [_together(name, fields) for fields in TOGETHER.get(case.op, ())]
        return alone + [change for change in together if change is not None]
    if case.op not in TRIED:
        return []
    if case.where == "encoder":
        return _short_forward(dim) if case.op == "attention" else _short_backward(dim)
    if case.op == "packed_attention_backward":
        return []  # of other sequences it is the same kernels as attention_backward
    return [change for i in ((0,) if case.op == "attention" else (1, 2)) for change in _flash(i)]


def _together(name: str, fields: Mapping[str, int]) -> Change | None:
    """One change of several fields; None where the launches have them all."""
    given: dict[str, dict[str, int]] = {}
    for field, value in fields.items():
        module, _, own = field.rpartition(".")
        given.setdefault(module or name, {})[own] = value
    told = [f"{field} {value}" for field, value in fields.items() if "." not in field]
    if len(told) < len(fields):
        told.append("other sums")
    parts: list[Change] = []
    for module, values in given.items():
        launch = import_module(f"videomae_fast.kernels.{module}").LAUNCH
        if (changed := replace(launch, **values)) != launch:
            parts.append(Change(", ".join(told), module, "LAUNCH", changed))
    return replace(parts[0], more=tuple(parts[1:])) if parts else None


def _short_forward(dim: int) -> list[Change]:
    module = import_module("videomae_fast.kernels.attention_short")
    key = module.widest(dim)
    return [
        Change(one.name, "attention_short", "FORWARD", {**module.FORWARD, key: one})
        for one in module.FORWARD_LAUNCHES[key]
        if one != module.FORWARD[key]
    ]


def _short_backward(dim: int) -> list[Change]:
    """In one pass, and in two where it is in one now."""
    module = import_module("videomae_fast.kernels.attention_short")
    key = module.widest(dim)
    now = module.ONE_PASS.get(key)
    found = [
        Change(one.name, "attention_short", "ONE_PASS", {**module.ONE_PASS, key: one})
        for one in module.ONE_PASS_LAUNCHES[key]
        if one != now
    ]
    if now is not None:
        rest = {width: one for width, one in module.ONE_PASS.items() if width != key}
        found.append(Change("two passes", "attention_short", "ONE_PASS", rest))
    return found


def _flash(kernel: int) -> list[Change]:
    """Of heads of 64, which all decoders have."""
    module = import_module("videomae_fast.kernels.attention_flash")
    tried = [
        replace(module.NARROW[kernel], queries=q, keys=k, num_warps=warps, num_stages=stages)
        for q, k, warps, stages in FLASH[kernel]
    ]
    label = ("forward", "of queries", "of keys")[kernel]
    return [
        Change(
            f"{label}: {_of(one)}",
            "attention_flash",
            "NARROW",
            tuple(one if i == kernel else now for i, now in enumerate(module.NARROW)),
        )
        for one in tried
        if one != module.NARROW[kernel]
    ]


def _of(launch: Any) -> str:
    return (
        f"{launch.queries} queries, {launch.keys} keys, {launch.num_warps} warps, "
        f"{launch.num_stages} stages"
    )


def measure(
    case: OpCase, dtype: torch.dtype, device: torch.device, repeats: int, dim: int = 64
) -> list[dict[str, Any]]:
    """A row per launch: its error, and its times where that is small."""
    torch.manual_seed(0)
    args = case.args()
    op = REGISTRY[case.op]
    truth = op.backends["reference"].run(*exact(args))
    same_dtype = error(op.backends["reference"].run(*args), truth)
    allowed = (3 if case.flop else 1.1) * same_dtype + torch.finfo(dtype).eps
    rows: list[dict[str, Any]] = []
    runs: dict[str, Callable[[], Any]] = {}
    for change in (None, *changes(case, dim)):
        name = AS_IT_IS if change is None else change.name
        row: dict[str, Any] = {
            "op": case.op, "where": case.where, "launch": name, "bytes": case.bytes,
        }  # fmt: skip
        rows.append(row)
        run = _changed(op.backends["triton"].run, change, args)
        try:
            row["error"] = error(run(), truth)
        except Exception as failure:  # too much shared memory, say: the others go on
            traceback.print_exception(failure)
            row["failed"] = f"{type(failure).__name__}: {(str(failure).splitlines() or [''])[0]}"
            continue
        row["correct"] = row["error"] <= allowed
        if row["correct"]:
            runs[name] = run
    taken = times_in_turns(runs, device, repeats, 1)
    for row in rows:
        if seconds := taken.get(row["launch"]):
            row["seconds"] = asdict(Summary.of(seconds))
    return rows


def _changed(
    run: Callable[..., Any], change: Change | None, args: tuple[Any, ...]
) -> Callable[[], Any]:
    def call() -> Any:
        if change is None:
            return run(*args)
        with change.made():
            return run(*args)

    return call


def table(record: dict[str, Any]) -> str:
    """Markdown: each op's launches, their share of the copy bandwidth, and how many times as fast
    as the one as it is.
    """
    copy = record["copy"]["TB/s"] * 1e12
    lines = [
        f"copy {copy / 1e9:,.0f} GB/s",
        "",
        "| op | launch | µs (quartiles) | of copy | times as fast |",
        "|-|-|-:|-:|-:|",
    ]
    now = None  # where that was not timed, there is nothing to compare with
    for row in record["results"]:
        name = f"| {row['op']} ({row['where']}) | {row['launch']} |"
        if row["launch"] == AS_IT_IS:
            now = row["seconds"]["median"] if "seconds" in row else None
        if "seconds" not in row:
            lines.append(f"{name} {row.get('failed', 'WRONG')} | | |")
            continue
        found = row["seconds"]
        faster = "" if now is None else f"{now / found['median']:.2f}"
        lines.append(
            f"{name} {1e6 * found['median']:,.1f} ({1e6 * found['q1']:,.1f} to "
            f"{1e6 * found['q3']:,.1f}) | {row['bytes'] / found['median'] / copy:.0%} | {faster} |"
        )
    return "\n".join(lines)


def _launches(job: tuple[str, int, str, str, str | None], arch: int) -> int:
    """Compiles what one launch of an op needs, without the GPU; how many kernels these were.

    Args:
        job: size, clips, op, place, and the change's name or None.
        arch: 90 for an H100 or H200.
    """
    size, batch, op, where, name = job
    workload = Workload(MAEConfig.from_size(size), batch, device="meta")  # type: ignore[arg-type]
    cases = op_cases(workload, DTYPES["bf16"])
    case = next(each for each in cases if (each.op, each.where) == (op, where))
    change = next((each for each in changes(case) if each.name == name), None)
    run = _changed(REGISTRY[op].backends["triton"].run, change, case.args())
    with recorded() as found:
        run()
    done = 0
    for launch in (variant for each in found for variant in _aligned(each)):
        try:
            launch.compiled(arch)
            done += 1
        except Exception:  # it is told when the launch is timed
            traceback.print_exc()
    return done


def _aligned(launch: Launch) -> Iterator[Launch]:
    """With rows of a program that 16 divides, as they are counted with, and that it does not."""
    if "n_run" not in launch.arguments:
        yield launch
        return
    yield from (launch.given(n_run=16), launch.given(n_run=17))


def _arch(_: Any) -> int | None:
    if not torch.cuda.is_available():
        return None
    major, minor = torch.cuda.get_device_capability()
    return 10 * major + minor


def compile_all(size: str, batch: int, ops: Sequence[str], processes: int) -> int:
    """Compiles the ops' launches in processes of their own; how many kernels.

    They are forks of one that has not used the GPU: what has can't be forked.
    """
    fork = multiprocessing.get_context("fork")
    with fork.Pool(1) as pool:
        arch = pool.map(_arch, [None])[0]
    if arch is None:
        return 0
    workload = Workload(MAEConfig.from_size(size), batch, device="meta")  # type: ignore[arg-type]
    jobs = [
        (size, batch, case.op, case.where, change and change.name)
        for case in op_cases(workload, DTYPES["bf16"])
        if case.op in ops
        for change in (None, *changes(case))
    ]
    # One thread each: a fork has none of the threads that torch's pool may have had
    with fork.Pool(processes, torch.set_num_threads, (1,)) as pool:
        return sum(pool.imap_unordered(partial(_launches, arch=arch), jobs))


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks launch-choice", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--device", default="cuda", help="default: cuda")
    parser.add_argument("--size", choices=SIZES, default="base")
    parser.add_argument("--batch", type=int, default=128, help="clips; default: 128")
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--ops", nargs="+", choices=TRIED, help="default: all")
    parser.add_argument("--tiny", action="store_true", help="tiny shapes, to test this script")
    parser.add_argument(
        "--processes", type=int, default=os.cpu_count() or 1,
        help="that compile first; 0: none; default: one per core",
    )  # fmt: skip
    parser.add_argument("--out", type=Path, help="folder; default: $OUT")
    return parser


def main(argv: Sequence[str]) -> int:
    words = list(argv)
    parser = arguments()
    args = parser.parse_args(words)
    device = torch.device(args.device)
    if args.out is None and not os.environ.get("OUT"):
        parser.error("where should the results go? give --out FOLDER, or set $OUT")
    start = time.perf_counter()
    if device.type == "cuda" and args.processes and not args.tiny:
        done = compile_all(args.size, args.batch, args.ops or TRIED, args.processes)
        print(f"{done} kernels compiled in {time.perf_counter() - start:.1f} s", flush=True)
    if device.type == "cuda" and not torch.cuda.is_available():
        parser.error("no GPU here")
    dtype = "bf16" if device.type == "cuda" else "fp32"
    config = TINY if args.tiny else MAEConfig.from_size(args.size)
    record: dict[str, Any] = {
        "kind": "launches",
        **environment(args.device, ["python", "-m", "benchmarks", "launch-choice", *words]),
        "workload": {"size": args.size, "batch": args.batch, "dtype": dtype},
        "copy": copy_bandwidth(device, 2**16 if args.tiny else 2**30, max(1, args.repeats), 3),
        "results": [],
    }
    dim = config.width // config.heads
    path = (args.out or Path(os.environ["OUT"])) / f"launches-{args.size}-batch{args.batch}.json"
    for case in op_cases(Workload(config, args.batch, device=args.device), DTYPES[dtype]):
        if not changes(case, dim) or (args.ops is not None and case.op not in args.ops):
            continue
        record["results"] += measure(case, DTYPES[dtype], device, args.repeats, dim)
        write(record, path)  # what is done stays, whatever comes
        path.with_suffix(".md").write_text(table(record) + "\n", encoding="utf-8")
    print(f"{table(record)}\nwritten: {path}")
    return int(any(_wrong(row) for row in record["results"]))


def _wrong(row: dict[str, Any]) -> bool:
    """Whether it computed something else; or failed, and not because it was changed."""
    return not row.get("correct", row["launch"] != AS_IT_IS)
