"""What the compiler made of the Triton kernels, at the models' shapes, without a GPU.

    python -m benchmarks machine-code --size base giant --out results     # JSON and a table
    python -m benchmarks machine-code --size giant --ops attention --show # the machine code itself

The ops of a training step are called with tensors that have shapes and strides but no values; each
launch is kept from happening and compiled as Triton would compile it for a GPU, with what it knows
of the arguments (which integers are 1 or divisible by 16, which pointers are aligned). The machine
code then tells what no timing is needed for: how wide memory is accessed, which matrix instructions
there are, what spills, how many warps fit a multiprocessor.

This is static evidence. It says what a kernel can't do, not how fast it is.
"""

from __future__ import annotations

import argparse
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.common import sass
from benchmarks.common.launches import ARCHS, Launch
from benchmarks.common.record import environment, write
from benchmarks.ops.step_launches import step_launches
from videomae_fast.models.config import SIZES
from videomae_fast.ops.registry import REGISTRY, interpreted

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
_MATRIX = ("HGMMA", "QGMMA", "IGMMA", "UTCHMMA", "HMMA", "IMMA", "DMMA")


def examine(launch: Launch, binary: sass.Binary) -> dict[str, Any]:
    """A row of the record: what the machine code of a launch has."""
    code = binary.code
    kinds = Counter(each.kind for each in code)
    return {
        "kernel": launch.name,
        "arch": binary.arch,
        "programs": launch.programs,
        "warps": binary.warps,
        "stages": launch.num_stages,
        "registers": binary.registers,
        "stack": binary.stack,
        "shared": binary.shared,
        "resident_warps": binary.resident_warps,
        "waves": round(sass.waves(launch.programs, binary.resident_programs), 2),
        "instructions": len(code),
        "instructions_per_byte": round(binary.per_byte, 2),
        "loads": sass.accesses(code, "LDG"),
        "copies_to_shared": sass.accesses(code, "LDGSTS"),
        "bulk_copies": kinds["UTMALDG"] + kinds["UBLKCP"],
        "stores": sass.accesses(code, "STG"),
        "local": kinds["LDL"] + kinds["STL"],
        "matrix": {name: kinds[name] for name in _MATRIX if kinds[name]},
        "fp32_multiply_adds": kinds["FFMA"],
        "barriers": sass.barriers(code),
        "barriers_in_a_loop": binary.loop_barriers,
        "not_aligned": sorted(
            name for name, kind in launch.signature.items()
            if kind not in ("constexpr", "fp32") and name not in launch.aligned
        ),
    }  # fmt: skip


def _told(by_width: dict[str, int]) -> str:
    return " ".join(f"{count}×{size}" for size, count in by_width.items())


def table(record: dict[str, Any]) -> str:
    """Markdown: a line for each different kernel of a size."""
    lines = [
        f"Triton {record['triton']}, sm_{record['arch']}, {record['workload']['dtype']}, batch "
        f"{record['workload']['batch']}. Accesses are instructions × bytes per thread; waves: how "
        f"often the programs fill {sass.COUNT} multiprocessors.",
        "",
        "| size | where | kernel | registers | shared | warps resident | waves | loads | to shared "
        "| stores | matrix | barriers (in a loop) | instructions per byte | spills |",
        "|-|-|-|-:|-:|-:|-:|-|-|-|-|-:|-:|-:|",
    ]
    for row in record["results"]:
        if "failed" in row:
            lines.append(f"| {row['size']} | {row['where']} | {row['kernel']} | {row['failed']} |")
            continue
        matrix = " ".join(f"{count} {name}" for name, count in row["matrix"].items())
        lines.append(
            f"| {row['size']} | {row['where']} | {row['kernel']} | {row['registers']} "
            f"| {row['shared']:,} | {row['resident_warps']} of 64 | {row['waves']} "
            f"| {_told(row['loads'])} "
            f"| {_told(row['copies_to_shared'])} | {_told(row['stores'])} | {matrix} "
            f"| {row['barriers']} ({row['barriers_in_a_loop']}) | {row['instructions_per_byte']} "
            f"| {row['stack'] or ''} |"
        )
    return "\n".join(lines)


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks machine-code", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--size", nargs="+", choices=SIZES, default=["base", "giant"])
    parser.add_argument("--batch", type=int, default=128, help="clips; default: 128")
    parser.add_argument("--dtype", choices=DTYPES, default="bf16")
    parser.add_argument("--arch", type=int, choices=ARCHS, default=90)
    parser.add_argument("--ops", nargs="+", choices=sorted(REGISTRY), help="default: all")
    parser.add_argument("--show", action="store_true", help="print the machine code")
    parser.add_argument("--out", type=Path, help="folder; default: $OUT, or nothing is written")
    return parser


def main(argv: Sequence[str]) -> int:
    words = list(argv)
    parser = arguments()
    args = parser.parse_args(words)
    if interpreted():
        parser.error("unset TRITON_INTERPRET: its interpreter compiles nothing")
    import triton

    record: dict[str, Any] = {
        "kind": "machine code",
        **environment("cpu", ["python", "-m", "benchmarks", "machine-code", *words]),
        "triton": triton.__version__,
        "arch": args.arch,
        "workload": {"sizes": args.size, "batch": args.batch, "dtype": args.dtype},
        "results": [],
    }
    for size in args.size:
        for where, launch in step_launches(size, args.batch, DTYPES[args.dtype], args.ops):
            row: dict[str, Any] = {"size": size, "where": where, "kernel": launch.name}
            print(f"{size}, {where}: {launch.name}", flush=True)
            try:
                binary = sass.binary(launch.compiled(args.arch), args.arch)
            except Exception as error:  # whatever the compiler raises is the finding
                row["failed"] = f"{type(error).__name__}: {str(error).splitlines()[0]}"
            else:
                row |= examine(launch, binary)
                if args.show:
                    print(binary.text)
            record["results"].append(row)
    text = table(record)
    print(f"\n{text}")
    out = args.out or os.environ.get("OUT")
    if out:
        path = write(record, Path(out) / f"machine-code-sm{args.arch}.json")
        path.with_suffix(".md").write_text(text + "\n", encoding="utf-8")
        print(f"written: {path}")
    return int(any("failed" in row or row["stack"] for row in record["results"]))
