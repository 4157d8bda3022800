"""Where the time of a training step goes, by kind of work."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch.profiler import ProfilerActivity, profile

from benchmarks.contenders.base import Contender
from benchmarks.measure.timing import timed_step

# The first family with a word in the op's name has it.
FAMILIES: dict[str, tuple[str, ...]] = {
    "optimizer": ("adam", "_foreach", "addcdiv", "addcmul", "lerp"),
    "attention, fused": ("scaled_dot_product", "videomae_fast::attention"),
    "softmax": ("softmax",),
    "LayerNorm": ("layer_norm",),
    "GELU": ("gelu",),
    "convolution": ("conv",),
    "matmul": ("mm", "linear", "matmul", "dot", "einsum"),
    "pixels and loss": ("pixel", "patch", "var", "std"),
    "masks, choosing and placing tokens": (
        "index", "gather", "scatter", "nonzero", "mask", "token", "assembly", "sort",
    ),
    "copies": ("copy", "clone", "cat", "contiguous", "to_copy", "fill_", "zero_"),
    "sums and elementwise": ("add", "mul", "sub", "div", "sum", "mean", "pow", "sqrt", "norm"),
}  # fmt: skip


def family(op: str) -> str:
    """The kind of work of an op, by its name in the profiler."""
    name = op.lower()
    for kind, words in FAMILIES.items():
        if any(word in name for word in words):
            return kind
    return "other"


def shares(self_times: Mapping[str, float]) -> dict[str, float]:
    """Share of each family, largest first, from the self times of ops; they add up to 1."""
    total = sum(self_times.values())
    found: dict[str, float] = {}
    for op, seconds in self_times.items():
        found[family(op)] = found.get(family(op), 0.0) + seconds / total
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def profiled_step(contender: Contender) -> Any:
    """The profiler after one training step; one step before it warms up."""
    timed_step(contender, phases=False)
    activities = [ProfilerActivity.CPU]
    if contender.device.type == "cuda":
        activities.append(ProfilerActivity.CUDA)
    with profile(activities=activities) as profiler:
        timed_step(contender, phases=False)
    return profiler


def self_times(contender: Contender, profiler: Any) -> dict[str, float]:
    """Microseconds spent in each op itself, on the contender's device."""
    on_device = contender.device.type == "cuda"
    found = {}
    for event in profiler.key_averages():
        time = event.self_device_time_total if on_device else event.self_cpu_time_total
        if time > 0:
            found[event.key] = float(time)
    return found


def print_profile(contender: Contender, rows: int = 15) -> dict[str, Any]:
    """Prints the share of each kind of work, and the profiler's own table.

    Returns:
        For a record: whose step it is, its seconds in all ops, and each kind's share.
    """
    profiler = profiled_step(contender)
    times = self_times(contender, profiler)
    found = shares(times)
    print(f"\n{contender.name}, {contender.masking}: share of a training step")
    for kind, share in found.items():
        print(f"  {kind:<36}{share:6.1%}")
    sort = "self_device_time_total" if contender.device.type == "cuda" else "self_cpu_time_total"
    table = profiler.key_averages().table(sort_by=sort, row_limit=rows, max_name_column_width=50)
    print(table)
    return {
        "contender": contender.name,
        "masking": contender.masking,
        "seconds": sum(times.values()) / 1e6,
        "shares": found,
    }
