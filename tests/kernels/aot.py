"""Compiles every Triton kernel for three GPUs, without one, and holds what it takes to a budget.

Each file of the kernels folder lists in ``aot_cases()`` the configurations that the official sizes
use. They are compiled for sm_80, sm_90 and sm_100; registers, stack (which is where spills go) and
shared memory are read from the binary. Nothing may spill, shared memory must fit the device, and
registers may not exceed what `aot_budget.json` records for this version of Triton.

    python tests/kernels/aot.py             check
    python tests/kernels/aot.py --record    write the budgets of this version of Triton anew
    python tests/kernels/aot.py --only NAME [--arch 90]   show the cases whose names hold NAME

It runs in a process without ``TRITON_INTERPRET``.
"""

from __future__ import annotations

import argparse
import importlib
import json
import multiprocessing
import os
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
BUDGET = Path(__file__).with_name("aot_budget.json")
SHARED_LIMIT = {80: 166_912, 90: 232_448, 100: 232_448}
REGISTER_SLACK = 8  # the assembler allots them in eights

Case = tuple[str, Any, dict[str, str], dict[str, Any], int, int]


@dataclass(frozen=True)
class Usage:
    """What a compiled kernel takes: registers per thread, bytes of stack per thread, shared bytes.

    `error` says why there is no binary.
    """

    registers: int = 0
    stack: int = 0
    shared: int = 0
    error: str | None = None


def cases() -> dict[str, Case]:
    """The configurations of all kernels, by name; every kernel has one."""
    from triton import JITFunction

    found: dict[str, Case] = {}
    for path in sorted((ROOT / "kernels").glob("*.py")):
        module = importlib.import_module(f"videomae_fast.kernels.{path.stem}")
        mine = module.aot_cases() if hasattr(module, "aot_cases") else []
        for case in mine:
            assert case[0] not in found, f"two cases are called {case[0]}"
            found[case[0]] = case
        kernels = {
            name
            for name, value in vars(module).items()
            if isinstance(value, JITFunction)
            and value.fn.__module__ == module.__name__
            and "tl.program_id" in value.src  # the others are parts of kernels
        }
        forgotten = kernels - {case[1].fn.__name__ for case in mine}
        assert not forgotten, f"kernels/{path.name}: aot_cases() lacks {sorted(forgotten)}"
    return found


def spilling_case() -> Case:
    """The negative control: more live values in a thread than it has registers."""
    from spilling_kernel import spilling  # beside this file

    return ("spilling", spilling, {"x_ptr": "*fp32", "out_ptr": "*fp32"}, {"SIZE": 8192}, 1, 1)


def _divisible(name: str, kind: str, constexprs: dict[str, Any]) -> bool:
    """Whether a launch in use passes a multiple of 16: pointers, and strides but for some.

    Those that ALIGN speaks of are multiples of it alone: heads of 88, cubes of 1176 values.
    """
    told = name.endswith(("_stride_clip", "_stride_head")) or name.startswith("prediction_")
    if told and constexprs.get("ALIGN", 16) < 16:
        return kind.startswith("*")
    return kind.startswith("*") or name.endswith("_stride") or "_stride_" in name


def compile_case(case: Case, arch: int) -> Usage:
    """Compiles one configuration for one architecture."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    _, kernel, signature, constexprs, num_warps, num_stages = case
    names = list(kernel.arg_names)
    unknown = (set(signature) | set(constexprs)) - set(names)
    assert not unknown, f"{case[0]}: no such arguments: {sorted(unknown)}"
    missing = set(names) - set(signature) - set(constexprs)
    assert not missing, f"{case[0]}: arguments without a value: {sorted(missing)}"
    kinds = {name: signature.get(name, "constexpr") for name in names}
    attributes = {
        (i,): [["tt.divisibility", 16]]
        for i, (name, kind) in enumerate(kinds.items())
        if kind != "constexpr" and _divisible(name, kind, constexprs)
    }
    values = {(names.index(name),): value for name, value in constexprs.items()}
    source = ASTSource(kernel, kinds, values, attributes)
    try:
        compiled = triton.compile(
            source,
            target=GPUTarget("cuda", arch, 32),
            options={"num_warps": num_warps, "num_stages": num_stages},
        )
    except Exception as error:  # whatever the compiler raises is the finding
        return Usage(error=f"{type(error).__name__}: {str(error)[:300]}")
    return _read(compiled.asm["cubin"], compiled.metadata.shared)


def _read(cubin: bytes, shared: int) -> Usage:
    import triton

    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        report = subprocess.run(
            [str(tool), "--dump-resource-usage", file.name],
            check=True, capture_output=True, text=True,
        ).stdout  # fmt: skip
    found = re.search(r"REG:(\d+) STACK:(\d+)", report)
    assert found is not None, f"cuobjdump's report has changed:\n{report}"
    return Usage(int(found[1]), int(found[2]), shared)


def problems(name: str, arch: int, usage: Usage, budget: int | None) -> list[str]:
    """What is wrong with a compiled kernel."""
    label = f"{name} sm_{arch}"
    if usage.error is not None:
        return [f"{label}: does not compile: {usage.error}"]
    found = []
    if usage.registers < 8:
        found.append(f"{label}: {usage.registers} registers: there is nothing in it")
    if usage.stack:
        found.append(f"{label}: spills: {usage.stack} bytes of stack per thread")
    if usage.shared > SHARED_LIMIT[arch]:
        found.append(f"{label}: {usage.shared} bytes of shared memory of {SHARED_LIMIT[arch]}")
    if budget is None:
        found.append(f"{label}: no recorded budget; run tests/kernels/aot.py --record")
    elif usage.registers > budget:
        found.append(f"{label}: {usage.registers} registers, recorded {budget}")
    return found


_CASES: dict[str, Case] = {}


def _job(job: tuple[str, int]) -> tuple[str, int, Usage]:
    if not _CASES:
        _CASES.update(cases())
    name, arch = job
    return name, arch, compile_case(_CASES[name], arch)


def compile_all(jobs: list[tuple[str, int]], workers: int) -> list[tuple[str, int, Usage]]:
    """Compiles in parallel processes."""
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        return pool.map(_job, jobs, chunksize=4)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--record", action="store_true", help="write the budgets anew")
    parser.add_argument("--only", default="", help="part of the names to compile; shows them")
    parser.add_argument("--arch", type=int, choices=sorted(SHARED_LIMIT), default=None)
    parser.add_argument("--workers", type=int, default=min(2, os.cpu_count() or 1))
    chosen = parser.parse_args()
    if os.environ.get("TRITON_INTERPRET", "0") != "0":
        raise SystemExit("unset TRITON_INTERPRET: its interpreter compiles nothing")
    import triton

    partial = bool(chosen.only or chosen.arch)
    if partial and chosen.record:
        raise SystemExit("--record takes all cases: leave out --only and --arch")
    archs = [chosen.arch] if chosen.arch else sorted(SHARED_LIMIT)
    jobs = [(name, arch) for name in cases() if chosen.only in name for arch in archs]
    results = compile_all(jobs, chosen.workers)

    recorded: dict[str, dict[str, dict[str, int]]] = (
        json.loads(BUDGET.read_text()) if BUDGET.exists() else {}
    )
    mine: dict[str, dict[str, int]] = {} if chosen.record else recorded.get(triton.__version__, {})
    if chosen.record:
        for name, arch, usage in results:
            mine.setdefault(name, {})[str(arch)] = usage.registers + REGISTER_SLACK
        recorded[triton.__version__] = mine
        BUDGET.write_text(json.dumps(recorded, indent=1, sort_keys=True) + "\n")
    wrong = []
    for name, arch, usage in results:
        if partial:
            print(name, f"sm_{arch}", usage)
        wrong += problems(name, arch, usage, mine.get(name, {}).get(str(arch)))
    if not partial and not chosen.record:
        gone = sorted(set(mine) - {name for name, _ in jobs})
        wrong += [f"{name}: has a budget and is no case any more" for name in gone]
    if not problems("spilling", 90, compile_case(spilling_case(), 90), budget=255):
        wrong.append("the kernel that spills on purpose was not caught")
    print("\n".join(wrong) or f"{len(results)} kernels compiled, none over its budget")
    return 1 if wrong else 0


sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]

if __name__ == "__main__":
    raise SystemExit(main())
