"""Our training step before and now: what is called, moved and kept, counted without a GPU.

    python -m benchmarks step-table --before f2f6efd --out benchmarks/results
    python -m benchmarks step-table --record RECORD.json   # its table again

Both trees' steps run on tensors without values (:mod:`benchmarks.gpu.traced_tree`) and are recorded
by this tree's recorder, with attention by the Triton kernels and torch's matmuls. Times are
modelled from bytes and flop and a card's measured ceilings, at the share of them that a good kernel
of each kind reaches: so they know of calls that are gone, and not of kernels that became better.
Those are in the second table, from two records of `machine-code`. **Nothing here is a timing.**
"""

from __future__ import annotations

import argparse
import io
import json
import re
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.common.record import environment, stamp, write
from benchmarks.gpu.calls import KNOWN, Call
from videomae_fast.models.config import SIZES

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results"
BATCHES = (8, 32, 128)
CASTS = {"aten::_to_copy", "aten::_foreach_copy_"}
JOINS = {"aten::cat", "aten::stack"}
NOW, COPIES = "now", "now, bf16 copies of weights"


def _of_numbers(call: Call) -> bool:
    """Whether single numbers are joined to a vector, as the norms of all gradients are."""
    found = re.match(r"(\d+) tensors, (\d+) values", call.shapes)
    return call.bytes <= 1024 or (found is not None and found[1] == found[2])


def counted(calls: Sequence[Call]) -> dict[str, float]:
    """What a step's calls amount to."""
    found: dict[str, float] = {
        "calls": len(calls),
        "casts": sum(call.op in CASTS for call in calls),
        "concatenations": sum(call.op in JOINS and not _of_numbers(call) for call in calls),
        "sums": sum(call.op == "aten::sum" and call.phase == "backward" for call in calls),
        "gigabytes": sum(call.bytes for call in calls) / 1e9,
    }
    for card in KNOWN:
        found[f"{card.name} ms"] = 1e3 * sum(call.modelled(card) for call in calls)
    return found


def traced(tree: Path, size: str, batch: int, *options: str) -> dict[str, float]:
    """The counts of a tree's step, and the megabytes that its forward pass leaves per clip.

    Raises:
        RuntimeError: the tree's step can't be traced.
    """
    child = Path(__file__).with_name("traced_tree.py")
    calls = Path(__file__).with_name("calls.py")
    words = [sys.executable, child, tree, calls, size, str(batch), *options]
    done = subprocess.run(list(map(str, words)), capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{tree}: {done.stderr.strip().splitlines()[-1:]}")
    found = json.loads(done.stdout)
    steps = [Call(**call) for call in found["calls"]]
    return {**counted(steps), "kept": found["kept"] / batch / 1e6}


def unpacked(commit: str, folder: Path) -> Path:
    """The files of a commit.

    Raises:
        subprocess.CalledProcessError: there is no such commit.
    """
    done = subprocess.run(["git", "archive", commit], cwd=ROOT, stdout=subprocess.PIPE, check=True)
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as files:
        files.extractall(folder, filter="data")
    return folder


def kernels(before: Path, now: Path, sizes: Sequence[str]) -> list[dict[str, Any]]:
    """The kernels that two records of `machine-code` have in common, their main ones."""
    first, second = (json.loads(path.read_text(encoding="utf-8")) for path in (before, now))

    def by_name(record: Mapping[str, Any]) -> dict[tuple[str, str, str], Mapping[str, Any]]:
        found: dict[tuple[str, str, str], Mapping[str, Any]] = {}
        for row in record["results"]:
            found.setdefault((row["size"], row["where"], row["kernel"]), row)
        return found

    old, new = by_name(first), by_name(second)
    numbers = ("registers", "waves", "barriers_in_a_loop", "instructions_per_byte", "stack")
    return [
        {
            "size": size,
            "where": where,
            "kernel": kernel,
            **{name: [old[size, where, kernel][name], row[name]] for name in numbers},
        }
        for (size, where, kernel), row in new.items()
        if size in sizes and (size, where, kernel) in old and "sum" not in kernel
    ]


def table(record: Mapping[str, Any]) -> str:
    """Both tables, in Markdown."""
    return "\n".join([*_steps(record), "", *_kernels(record)])


def _steps(record: Mapping[str, Any]) -> Iterator[str]:
    cards = [card.name for card in KNOWN]
    yield (
        f"Counted and modelled, not measured. Before: {record['before']}. A call is one that the "
        "dispatcher sees and that has something to do; kept: what forward leaves for backward, "
        "weights in bf16 included. Modelled ms are those of the device, not of a host that can't "
        "follow."
    )
    yield ""
    yield (
        "| size | batch | | calls | casts | concatenations | bias sums | GB moved "
        "| kept, MB a clip |" + "".join(f" modelled ms, {card} |" for card in cards)
    )
    yield "|-|-:|-|" + "-:|" * (6 + len(cards))
    for row in record["results"]:
        times = "".join(f" {row[f'{card} ms']:.1f} |" for card in cards)
        yield (
            f"| {row['size']} | {row['batch']} | {row['tree']} | {row['calls']:.0f} "
            f"| {row['casts']:.0f} | {row['concatenations']:.0f} | {row['sums']:.0f} "
            f"| {row['gigabytes']:.1f} | {row['kept']:.0f} |{times}"
        )


def _kernels(record: Mapping[str, Any]) -> Iterator[str]:
    yield "Machine code for sm_90 at batch 128 (bf16): before → now."
    yield ""
    yield "| size | kernel | registers | waves | barriers in a loop | instructions per byte |"
    yield "|-|-|-:|-:|-:|-:|"
    for row in record["kernels"]:
        cells = (
            f"{row[name][0]} → {row[name][1]}"
            for name in ("registers", "waves", "barriers_in_a_loop", "instructions_per_byte")
        )
        yield f"| {row['size']} | {row['where']} | " + " | ".join(cells) + " |"


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks step-table", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--before", default="f2f6efd", help="commit; default: f2f6efd")
    parser.add_argument("--size", nargs="+", choices=SIZES, default=["base", "giant"])
    parser.add_argument("--batch", nargs="+", type=int, default=list(BATCHES), help="clips")
    parser.add_argument(
        "--kernels",
        nargs=2,
        type=Path,
        metavar=("BEFORE", "NOW"),
        default=[
            RESULTS / "archive" / "machine-code-sm90-20261126-before.json",
            RESULTS / "machine-code-sm90-20261126.json",
        ],
        help="records of machine-code",
    )
    parser.add_argument("--record", type=Path, help="print the table of this record, trace nothing")
    parser.add_argument("--out", type=Path, help="folder; default: nothing is written")
    return parser


def main(argv: Sequence[str]) -> int:
    words = list(argv)
    args = arguments().parse_args(words)
    if args.record is not None:
        print(table(json.loads(args.record.read_text(encoding="utf-8"))))
        return 0
    record: dict[str, Any] = {
        "kind": "step table",
        **environment("cpu", ["python", "-m", "benchmarks", "step-table", *words]),
        "before": args.before,
        "results": [],
        "kernels": kernels(args.kernels[0], args.kernels[1], args.size),
    }
    with tempfile.TemporaryDirectory() as folder:
        old = unpacked(args.before, Path(folder))
        for size in args.size:
            for batch in args.batch:
                rows = {
                    args.before: traced(old, size, batch),
                    NOW: traced(ROOT, size, batch),
                    COPIES: traced(ROOT, size, batch, "shadow-weights"),
                }
                for tree, row in rows.items():
                    record["results"].append({"size": size, "batch": batch, "tree": tree, **row})
    text = table(record)
    print(text)
    if args.out is not None:
        path = write(record, args.out / f"counted-step-{stamp()}.json")
        path.with_suffix(".md").write_text(text + "\n", encoding="utf-8")
        print(f"written: {path}")
    return 0
