"""The processor: which one it is, what it computes with, and how fast it multiplies matrices.

A speedup on a CPU is one of that CPU: of how fast its matmuls are, and by which instructions. A
name alone ("AMD EPYC") doesn't say that.
"""

from __future__ import annotations

import platform
import statistics
import time
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from videomae_fast.ops import linear

CPUINFO = Path("/proc/cpuinfo")
# As a record names them, and Linux
INSTRUCTIONS = {
    "AVX2": "avx2",
    "AVX-512": "avx512f",
    "AVX-512 BF16": "avx512_bf16",
    "AMX": "amx_tile",
    "AMX BF16": "amx_bf16",
}
SIDE = 512  # of the matrices
MOST = 0.2  # seconds, about, for each rate


@cache
def processor(path: Path = CPUINFO) -> dict[str, Any]:
    """The first processor of the machine, by Linux's description.

    Returns:
        "name", "vendor", "family", "model", "stepping" (numbers; None where the system does not
        tell) and "instructions": those of :data:`INSTRUCTIONS` that it has; None: not known.
    """
    try:
        text = path.read_text(encoding="utf-8").split("\n\n")[0]
    except OSError:
        text = ""
    rows = (line.partition(":") for line in text.splitlines())
    told = {key.strip(): value.strip() for key, _, value in rows}
    flags = told["flags"].split() if "flags" in told else None
    return {
        "name": told.get("model name") or platform.processor() or "unknown",
        "vendor": told.get("vendor_id"),
        **{
            name: int(told[key]) if told.get(key, "").isdigit() else None
            for name, key in (("family", "cpu family"), ("model", "model"), ("stepping",) * 2)
        },
        "instructions": None
        if flags is None
        else [name for name, flag in INSTRUCTIONS.items() if flag in flags],
    }


def processor_name(machine: Mapping[str, Any]) -> str:
    """Of a record's "machine": name, family and model; the name alone in records before these."""
    found = machine.get("processor") or {}
    if found.get("family") is None:
        return str(machine["cpu"])
    return f"{machine['cpu']} (family {found['family']}, model {found['model']})"


def machine_name(machine: Mapping[str, Any]) -> str:
    """Of a record's "machine": the GPU's name, or processor and threads."""
    if machine["device"] != "cpu":
        return str(machine["device"])
    return f"{processor_name(machine)}, {machine['threads']} threads"


def processor_told(machine: Mapping[str, Any]) -> str:
    """Of a record's "machine": the processor's instructions and rates, or that it does not say."""
    found, rates = machine.get("processor"), machine.get("matmul_GFLOP/s")
    if not found or not rates:
        return "instructions and matmul rate were not recorded"
    names = found["instructions"]
    told = "instructions not known" if names is None else ", ".join(names) or "no AVX2"
    return (
        f"{told}; matmuls at {rates['fp32']:,.0f} GFLOP/s in fp32 ({rates['fp32, linear']:,.0f} by "
        f"our linear layers), {rates['bf16']:,.0f} in bf16"
    )


@cache
def matmul_rates(threads: int) -> dict[str, float]:
    """GFLOP/s of a square product with so many threads; measured once in a process.

    Returns:
        "fp32" and "bf16" by torch's own matmul, and "fp32, linear" by what this library's linear
        layers use, which is oneDNN where that is faster.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        x, weight = (torch.randn(SIDE, SIDE) for _ in range(2))
        low = x.bfloat16(), weight.bfloat16()
        with torch.no_grad():
            return {
                "fp32": _rate(lambda: F.linear(x, weight)),
                "fp32, linear": _rate(lambda: linear(x, weight)),
                "bf16": _rate(lambda: F.linear(*low)),
            }
    finally:
        torch.set_num_threads(before)


def _rate(multiply: Callable[[], object]) -> float:
    multiply()
    taken: list[float] = []
    while len(taken) < 3 or (len(taken) < 15 and sum(taken) < MOST):
        start = time.perf_counter()
        multiply()
        taken.append(time.perf_counter() - start)
    return 2 * SIDE**3 / statistics.median(taken) / 1e9
