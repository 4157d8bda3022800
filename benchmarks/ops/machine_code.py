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
import re
import subprocess
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.common.record import environment, write
from benchmarks.common.workload import Workload
from benchmarks.ops.cases import op_cases
from videomae_fast import MAEConfig
from videomae_fast.models.config import SIZES
from videomae_fast.ops.registry import REGISTRY, interpreted

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
_KINDS = {
    torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16", torch.uint8: "u8",
    torch.int32: "i32", torch.int64: "i64",
}  # fmt: skip


@dataclass(frozen=True)
class Multiprocessor:
    """What one multiprocessor of an architecture has for its programs."""

    registers: int = 65_536
    warps: int = 64
    programs: int = 32
    shared: int = 233_472
    reserved: int = 1024  # bytes of shared memory that each program costs besides its own


MULTIPROCESSORS = {
    80: Multiprocessor(shared=167_936),
    90: Multiprocessor(),
    100: Multiprocessor(),
}


@dataclass(frozen=True)
class Launch:
    """One launch of a kernel, as Triton's compiler sees it.

    Attributes:
        kernel: the function.
        signature: types of the arguments that are passed at run time.
        constants: values of those that the compiler knows; an integer that is 1 is among them.
        aligned: names of arguments divisible by 16 (pointers: aligned to 16 bytes).
        options: num_warps, num_stages.
        programs: of the grid.
    """

    kernel: Any
    signature: dict[str, str]
    constants: dict[str, Any]
    aligned: tuple[str, ...]
    options: dict[str, int]
    programs: int

    @property
    def name(self) -> str:
        return f"{self.kernel.fn.__module__.rpartition('.')[2]}.{self.kernel.fn.__name__}"


def launch_of(kernel: Any, grid: Any, args: Sequence[Any], options: dict[str, Any]) -> Launch:
    """A launch with what Triton would specialise it on."""
    names = list(kernel.arg_names)
    given = dict(zip(names, args, strict=False))
    given |= {name: options.pop(name) for name in list(options) if name in names}
    known = {p.name for p in kernel.params if p.is_constexpr}
    signature: dict[str, str] = {}
    constants: dict[str, Any] = {}
    aligned = []
    for name in names:
        value = given[name]
        if name in known or value is None:
            constants[name] = value
        elif isinstance(value, torch.Tensor):
            signature[name] = f"*{_KINDS[value.dtype]}"
            # A tensor without values starts at address 0, as if allocated
            if (value.storage_offset() * value.element_size()) % 16 == 0:
                aligned.append(name)
        elif isinstance(value, float):
            signature[name] = "fp32"
        elif value == 1:
            constants[name] = 1
        else:
            signature[name] = "i32" if -(2**31) <= value < 2**31 else "i64"
            if value % 16 == 0:
                aligned.append(name)
    count = 1
    for extent in grid:
        count *= extent
    return Launch(kernel, signature, constants, tuple(aligned), dict(options), count)


@contextmanager
def recorded() -> Iterator[list[Launch]]:
    """Triton's launches are noted instead of made."""
    from triton import JITFunction

    found: list[Launch] = []

    def run(kernel: Any, *args: Any, grid: Any, warmup: bool, **options: Any) -> None:
        found.append(launch_of(kernel, grid, args, options))

    right = JITFunction.run
    JITFunction.run = run
    try:
        yield found
    finally:
        JITFunction.run = right


def step_launches(
    size: str, batch: int, dtype: torch.dtype, ops: Sequence[str] | None = None
) -> Iterator[tuple[str, Launch]]:
    """(where, launch) of each kernel of a training step with dual masking, forward and backward."""
    workload = Workload(MAEConfig.from_size(size), batch, device="meta")  # type: ignore[arg-type]
    for case in op_cases(workload, dtype):
        if "triton" not in REGISTRY[case.op].backends or (ops and case.op not in ops):
            continue
        args = case.args()
        with recorded() as found:
            REGISTRY[case.op].backends["triton"].run(*args)
        for launch in found:
            yield case.name, launch
    if not ops or "mask_indices" in ops:
        with recorded() as found:
            _make_masks(workload)
        for launch in found:
            yield "mask_indices (a batch)", launch


def _make_masks(workload: Workload) -> None:
    grid, spec = workload.config.grid, workload.spec("dual")
    counts = spec.counts(grid)
    REGISTRY["mask_indices"].backends["triton"].run(
        workload.mask_seeds.to("meta"), grid.slots, grid.height, grid.width,
        spec.encoder, spec.encoder_masked(grid), spec.decoder, spec.decoder_masked(grid),
        spec.loss_over == "all", spec.skip_seen, counts.visible, counts.decoder, counts.loss,
    )  # fmt: skip


def compiled(launch: Launch, arch: int) -> tuple[bytes, int]:
    """The binary for an architecture (90: H100, H200), and its bytes of shared memory."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    names = list(launch.kernel.arg_names)
    kinds = {name: launch.signature.get(name, "constexpr") for name in names}
    values = {(names.index(name),): value for name, value in launch.constants.items()}
    attributes = {(names.index(name),): [["tt.divisibility", 16]] for name in launch.aligned}
    source = ASTSource(launch.kernel, kinds, values, attributes)
    target = GPUTarget("cuda", arch, 32)
    made = triton.compile(source, target=target, options=dict(launch.options))
    return made.asm["cubin"], made.metadata.shared


def disassembled(cubin: bytes) -> tuple[str, int, int]:
    """The machine code as text, registers per thread, bytes of stack per thread."""
    import triton

    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()

        def told(option: str) -> str:
            path = f"{tool.parent}{os.pathsep}{os.environ.get('PATH', '')}"
            return subprocess.run(
                [str(tool), option, file.name],
                check=True, capture_output=True, text=True, env={**os.environ, "PATH": path},
            ).stdout  # fmt: skip

        usage = re.search(r"REG:(\d+) STACK:(\d+)", told("--dump-resource-usage"))
        assert usage is not None, "cuobjdump's report has changed"
        return told("--dump-sass"), int(usage[1]), int(usage[2])


_INSTRUCTION = re.compile(r"/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z][A-Z0-9_.a-z]*)")
_MATRIX = ("HGMMA", "QGMMA", "IGMMA", "UTCHMMA", "HMMA", "IMMA", "DMMA")


def instructions(text: str) -> Counter[str]:
    """How often each instruction stands in the machine code, with its modifiers."""
    return Counter(_INSTRUCTION.findall(text))


def width(instruction: str) -> int:
    """Bytes that one thread moves with a memory instruction."""
    parts = instruction.split(".")
    for bits in (256, 128, 64):
        if str(bits) in parts or (f"BYPASS{bits}" in parts):
            return bits // 8
    for part in parts:
        if part in ("U8", "S8"):
            return 1
        if part in ("U16", "S16"):
            return 2
    return 4


def accesses(found: Counter[str], *kinds: str) -> dict[str, int]:
    """Memory instructions of these kinds by the bytes that each thread moves: {"16": 12, ...}."""
    by_width: Counter[int] = Counter()
    for instruction, count in found.items():
        if instruction.split(".")[0] in kinds:
            by_width[width(instruction)] += count
    return {str(size): by_width[size] for size in sorted(by_width, reverse=True)}


def resident_warps(registers: int, shared: int, warps: int, arch: int) -> int:
    """The most warps of a kernel that a multiprocessor holds at once."""
    sm = MULTIPROCESSORS[arch]
    per_warp = -(-registers * 32 // 256) * 256  # registers are allotted to warps in 256s
    by_registers = sm.registers // per_warp // warps if per_warp else sm.programs
    by_shared = sm.shared // (shared + sm.reserved)
    return min(sm.warps // warps, sm.programs, by_registers, by_shared) * warps


def examine(launch: Launch, arch: int) -> dict[str, Any]:
    """A row of the record: what the machine code of a launch has."""
    cubin, shared = compiled(launch, arch)
    text, registers, stack = disassembled(cubin)
    found = instructions(text)
    warps = launch.options["num_warps"]
    first = {name: sum(n for i, n in found.items() if i.split(".")[0] == name) for name in _MATRIX}
    return {
        "kernel": launch.name,
        "arch": arch,
        "programs": launch.programs,
        "warps": warps,
        "stages": launch.options.get("num_stages", 3),
        "registers": registers,
        "stack": stack,
        "shared": shared,
        "resident_warps": resident_warps(registers, shared, warps, arch),
        "instructions": sum(found.values()),
        "loads": accesses(found, "LDG"),
        "copies_to_shared": accesses(found, "LDGSTS"),
        "bulk_copies": sum(n for i, n in found.items() if i.startswith(("UTMALDG", "UBLKCP"))),
        "stores": accesses(found, "STG"),
        "local": sum(n for i, n in found.items() if i.split(".")[0] in ("LDL", "STL")),
        "matrix": {name: count for name, count in first.items() if count},
        "fp32_multiply_adds": sum(n for i, n in found.items() if i.startswith("FFMA")),
        "barriers": sum(n for i, n in found.items() if i.startswith("BAR.SYNC")),
        "not_aligned": sorted(
            set(launch.signature) - set(launch.aligned)
            - {name for name, kind in launch.signature.items() if kind == "fp32"}
        ),
    }  # fmt: skip


def _told(by_width: dict[str, int]) -> str:
    return " ".join(f"{count}×{size}" for size, count in by_width.items())


def table(record: dict[str, Any]) -> str:
    """Markdown: a line for each different kernel of a size."""
    lines = [
        f"Triton {record['triton']}, sm_{record['arch']}, {record['workload']['dtype']}, batch "
        f"{record['workload']['batch']}. Accesses are instructions × bytes per thread.",
        "",
        "| size | where | kernel | registers | shared | warps resident | loads | to shared "
        "| stores | matrix | spills |",
        "|-|-|-|-:|-:|-:|-|-|-|-|-:|",
    ]
    for row in record["results"]:
        if "failed" in row:
            lines.append(f"| {row['size']} | {row['where']} | {row['kernel']} | {row['failed']} |")
            continue
        matrix = " ".join(f"{count} {name}" for name, count in row["matrix"].items())
        lines.append(
            f"| {row['size']} | {row['where']} | {row['kernel']} | {row['registers']} "
            f"| {row['shared']:,} | {row['resident_warps']} of 64 | {_told(row['loads'])} "
            f"| {_told(row['copies_to_shared'])} | {_told(row['stores'])} | {matrix} "
            f"| {row['stack'] or ''} |"
        )
    return "\n".join(lines)


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks machine-code", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--size", nargs="+", choices=SIZES, default=["base", "giant"])
    parser.add_argument("--batch", type=int, default=128, help="clips; default: 128")
    parser.add_argument("--dtype", choices=DTYPES, default="bf16")
    parser.add_argument("--arch", type=int, choices=MULTIPROCESSORS, default=90)
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
            row |= _examined(launch, args.arch)
            record["results"].append(row)
            print(f"{size}, {where}: {launch.name}", flush=True)
            if args.show:
                print(disassembled(compiled(launch, args.arch)[0])[0])
    text = table(record)
    print(f"\n{text}")
    out = args.out or os.environ.get("OUT")
    if out:
        path = write(record, Path(out) / f"machine-code-sm{args.arch}.json")
        path.with_suffix(".md").write_text(text + "\n", encoding="utf-8")
        print(f"written: {path}")
    return int(any("failed" in row or row["stack"] for row in record["results"]))


def _examined(launch: Launch, arch: int) -> dict[str, Any]:
    examined: Callable[[Launch, int], dict[str, Any]] = examine
    try:
        return examined(launch, arch)
    except Exception as error:  # whatever the compiler raises is the finding
        return {"failed": f"{type(error).__name__}: {str(error).splitlines()[0]}"}
