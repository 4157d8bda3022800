"""Every attention backend at the models' shapes; writes the table that "auto" goes by.

    python -m benchmarks attention-choice --out results            # measures, on a GPU
    python -m benchmarks attention-choice --out results --write    # and writes the table
    python -m benchmarks attention-choice --table-of results/attention-choice.json  # elsewhere

Forward, backward and both together, bf16, of packed QKV matmuls as the models call it: so with
what a backend leaves to do, such as bringing three gradients together and summing them for biases.
Compared are torch's cuDNN, flash and memory-efficient attention by themselves and as torch picks
one, the Triton kernels, and the libraries that are installed. Each backend's output and gradients
are compared with an fp32 reference first; one whose error is more than twice that of torch's own
attention is reported as wrong and not timed. The table goes by both together, since a backend
brings its own backward; the record says which would win in each direction. It is
videomae_fast/ops/attention_table.json; --table writes another file, which a process started with
VIDEOMAE_FAST_ATTENTION_TABLE=FILE goes by.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.common.command import command_of, device_of, named_folder, parser_of
from benchmarks.common.record import environment, read, write
from benchmarks.measure.timing import rated, times_in_turns
from benchmarks.ops.speed import error
from videomae_fast.errors import BackendUnavailableError
from videomae_fast.ops import packed_attention
from videomae_fast.ops._attention.choice import SHIPPED
from videomae_fast.ops.attention import IMPLS


@dataclass(frozen=True)
class Shape:
    """One call of attention in a model."""

    queries: int
    keys: int
    heads: int
    head_dim: int
    where: str


SHAPES = (
    Shape(160, 160, 6, 64, "encoder of S"),
    Shape(160, 160, 12, 64, "encoder of B"),
    Shape(160, 160, 16, 80, "encoder of H"),
    Shape(208, 208, 16, 88, "encoder of g"),
    Shape(944, 944, 6, 64, "decoder of B"),
    Shape(704, 944, 6, 64, "last decoder block of B"),
    Shape(1232, 1232, 8, 64, "decoder of g"),
    Shape(920, 1232, 8, 64, "last decoder block of g"),
    Shape(1568, 1568, 12, 64, "classifier of B"),
)
# Of a forward pass's flop: backward computes the scores again.
WORK = {"forward": 1.0, "backward": 2.5, "both": 3.5}
AT_ONCE = 16  # clips of the fp32 reference
TINY = (Shape(5, 7, 2, 8, "a test"),)


@dataclass(frozen=True)
class Inputs:
    """What a model's block hands to attention, and the gradient that comes back.

    Attributes:
        packed: [B, N, 3 or 2, heads, head dim], with two parts where `query` is apart.
        query: [B, K, heads, head dim] or None.
        biases: of queries and of values, [heads * head dim] fp32.
        grad: of the output.
    """

    packed: Tensor
    query: Tensor | None
    biases: tuple[Tensor, Tensor]
    grad: Tensor

    @property
    def leaves(self) -> list[Tensor]:
        """Packed, query where there is one, biases."""
        own = [self.packed] if self.query is None else [self.packed, self.query]
        return [*own, *self.biases]

    def forward(self, impl: str) -> Tensor:
        q_bias, v_bias = self.biases
        return packed_attention(
            self.packed, query=self.query, q_bias=q_bias, v_bias=v_bias, impl=impl
        )

    def run(self, impl: str) -> tuple[Tensor, ...]:
        """The output and the gradients of packed and query."""
        out = self.forward(impl)
        return out.detach(), *torch.autograd.grad(out, self.leaves, self.grad)[:-2]

    def clips(self) -> Iterator[Inputs]:
        """Some clips at a time, in fp32."""

        def part(x: Tensor, start: int) -> Tensor:
            return x.detach()[start : start + AT_ONCE].float().requires_grad_()

        for start in range(0, len(self.packed), AT_ONCE):
            query = None if self.query is None else part(self.query, start)
            packed, grad = part(self.packed, start), part(self.grad, start).detach()
            yield Inputs(packed, query, self.biases, grad)


def inputs(shape: Shape, batch: int, device: torch.device, dtype: torch.dtype) -> Inputs:
    """Random ones of a shape."""
    torch.manual_seed(0)
    size = (shape.heads, shape.head_dim)
    options: dict[str, Any] = {"dtype": dtype, "device": device}
    apart = shape.queries != shape.keys
    packed = torch.randn(batch, shape.keys, 2 if apart else 3, *size, **options).requires_grad_()
    query = torch.randn(batch, shape.queries, *size, **options)
    biases = tuple(torch.zeros(size, device=device).flatten().requires_grad_() for _ in range(2))
    asking = query.detach().clone().requires_grad_() if apart else None
    return Inputs(packed, asking, (biases[0], biases[1]), torch.randn_like(query))


def exact(given: Inputs) -> list[Tensor]:
    """What :meth:`Inputs.run` gives in fp32: all scores of 128 clips at once are 15 GB."""
    parts = [part.run("reference") for part in given.clips()]
    return [torch.cat(of_all) for of_all in zip(*parts, strict=True)]


def directions(impl: str, given: Inputs) -> dict[str, Callable[[], Any]]:
    """The forward pass (as in training), the backward pass, and both."""
    out = given.forward(impl)

    def backward() -> tuple[Tensor, ...]:
        return torch.autograd.grad(out, given.leaves, given.grad, retain_graph=True)

    return {
        "forward": lambda: given.forward(impl),
        "backward": backward,
        "both": partial(given.run, impl),
    }


def measure(
    shape: Shape, batch: int, device: torch.device, dtype: torch.dtype, repeats: int
) -> list[dict[str, Any]]:
    """A row per backend: its error and its times, or why it has none."""
    given = inputs(shape, batch, device, dtype)
    truth = exact(given)
    allowed = 2 * error(given.run("sdpa"), truth) + 1e-6
    rows: list[dict[str, Any]] = []
    runs: dict[str, Callable[[], Any]] = {}
    for impl in IMPLS:
        if impl in ("auto", "reference"):
            continue
        row: dict[str, Any] = {**asdict(shape), "batch": batch, "impl": impl}
        rows.append(row)
        try:
            found = error(given.run(impl), truth)
        except BackendUnavailableError as reason:
            row["unavailable"] = str(reason)
            continue
        except Exception as failure:  # a compiler's error, say: the others go on
            told = (str(failure).splitlines() or [""])[0]
            row["unavailable"] = f"{type(failure).__name__}: {told}"
            continue
        row |= {"error": found, "allowed": allowed, "correct": found <= allowed}
        if row["correct"]:
            calls = directions(impl, given)
            runs |= {f"{impl}, {way}": call for way, call in calls.items()}
    taken = times_in_turns(runs, device, repeats, 3)
    work = 4 * batch * shape.heads * shape.queries * shape.keys * shape.head_dim
    for row in rows:
        for way, share in WORK.items():
            if seconds := taken.get(f"{row['impl']}, {way}"):
                rate = rated(seconds, share * work, "TFLOP/s")
                row |= rate if way == "both" else {way: rate}
    return rows


def fastest(results: Sequence[dict[str, Any]], device: str) -> list[dict[str, Any]]:
    """The table's entries for a device: the backend with the least median of each shape."""
    best: dict[tuple[int, int, int], dict[str, Any]] = {}
    for row in results:
        if "seconds" not in row:
            continue
        key = (row["head_dim"], row["queries"], row["keys"])
        if key not in best or row["TFLOP/s"] > best[key]["TFLOP/s"]:
            best[key] = row
    return [
        {
            "device": device,
            "head_dim": head_dim,
            "queries": queries,
            "keys": keys,
            "impl": row["impl"],
        }
        for (head_dim, queries, keys), row in sorted(best.items())
    ]


def write_table(entries: Sequence[dict[str, Any]], path: Path = SHIPPED) -> None:
    """Replaces the entries of the same device; those of others stay."""
    table = json.loads((path if path.exists() else SHIPPED).read_text(encoding="utf-8"))
    measured = {entry["device"] for entry in entries}
    kept = [entry for entry in table["entries"] if entry["device"] not in measured]
    table["entries"] = [*kept, *entries]
    path.parent.mkdir(parents=True, exist_ok=True)
    partial_file = path.with_name(f"{path.name}.partial")
    partial_file.write_text(json.dumps(table, indent=2) + "\n", encoding="utf-8")
    partial_file.replace(path)


def told(results: Sequence[dict[str, Any]]) -> str:
    """A line per shape and backend, and who wins each direction of a shape."""
    lines = []
    for where in dict.fromkeys(row["where"] for row in results):
        rows = [row for row in results if row["where"] == where]
        for row in rows:
            said = row.get("unavailable") or ("WRONG" if not row["correct"] else "not timed")
            if "TFLOP/s" in row:
                forward, backward = (row[way]["TFLOP/s"] for way in ("forward", "backward"))
                said = f"{row['TFLOP/s']:.1f} TFLOP/s ({forward:.1f} and {backward:.1f})"
            lines.append(f"{where}: {row['impl']}: {said}")
        timed = [row for row in rows if "TFLOP/s" in row]
        if timed:
            first, second = (
                max(timed, key=lambda row: row[way]["TFLOP/s"])["impl"]
                for way in ("forward", "backward")
            )
            both = max(timed, key=lambda row: row["TFLOP/s"])["impl"]
            lines.append(f"{where}: fastest: {both}; forward {first}, backward {second}")
    return "\n".join(lines)


def arguments() -> argparse.ArgumentParser:
    """The parser of ``attention-choice``."""
    parser = parser_of("attention-choice", __doc__, tiny=True, device="cuda", batch=128, repeats=20)
    parser.add_argument("--write", action="store_true", help="write the table too (on a GPU)")
    parser.add_argument("--table", type=Path, metavar="FILE", help="write a table into this file")
    parser.add_argument(
        "--table-of",
        type=Path,
        metavar="RECORD",
        help="measure nothing: write the table of what this file holds",
    )
    return parser


def main(argv: Sequence[str]) -> int:
    """Measures, or writes the table of a record.

    Returns:
        1 where a backend is wrong.
    """
    parser = arguments()
    args = parser.parse_args(argv)
    if args.table_of is not None:
        record = read(args.table_of)
        if record.get("kind") != "attention_choice" or not record["machine"].get("capability"):
            parser.error(f"{args.table_of} was not measured by this command on a GPU")
        write_table(fastest(record["results"], record["machine"]["device"]))
        print(f"written: {SHIPPED}")
        return 0
    path = named_folder(parser, args) / "attention-choice.json"
    device = device_of(parser, args.device, "--device cpu --tiny tests the script without one")
    if args.write and device.type != "cuda":
        parser.error("--write needs a GPU: the table holds what was measured on one")
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    record = {
        "kind": "attention_choice",
        **environment(args.device, command_of("attention-choice", argv)),
        "results": [],
    }
    for shape in TINY if args.tiny else SHAPES:
        record["results"] += measure(shape, args.batch, device, dtype, args.repeats)
        write(record, path)  # what is done stays, whatever comes
        if args.table is not None:
            write_table(fastest(record["results"], record["machine"]["device"]), args.table)
    print(told(record["results"]))
    if args.write:
        write_table(fastest(record["results"], record["machine"]["device"]))
        print(f"written: {SHIPPED}")
    print(f"written: {path}")
    return 0 if all(row.get("correct", True) for row in record["results"]) else 1
