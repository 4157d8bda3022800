"""Peak memory of a training step: of the GPU, or of a process of its own on the CPU (Linux)."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.common.workload import Masking, Workload
from benchmarks.contenders.base import Variant
from benchmarks.contenders.build import build
from benchmarks.measure.timing import timed_step
from videomae_fast import MAEConfig

STATUS = Path("/proc/self/status")
# Writing 5 there makes the kernel forget the process's peak so far.
CLEAR = Path("/proc/self/clear_refs")


def peak_memory(
    workload: Workload, variant: Variant, masking: Masking, threads: int
) -> dict[str, float]:
    """Peak during the second training step (when the optimizer has its state).

    On the CPU in a process of its own, as memory that was freed before would hide what is needed.

    Returns:
        "peak_bytes": all of the process (CPU) or of the allocator (GPU);
        "process_bytes": of the process before the model was made (0 on a GPU);
        "weights_bytes": of parameters, gradients and AdamW's moments;
        "per_clip_bytes": the peak without these two, by clip: activations and what passes.

    Raises:
        RuntimeError: the process failed.
    """
    order = {
        "workload": workload.describe(),
        "variant": variant.to_dict(),
        "masking": masking,
        "threads": threads,
    }
    # A fixed threshold gives large tensors back to the system as soon as they are freed.
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"}
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.measure.memory", json.dumps(order)],
        env=environment,
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"measuring the memory of {variant} failed:\n{done.stderr}")
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def measure(order: dict[str, Any]) -> dict[str, float]:
    """What :func:`peak_memory` returns, in this process."""
    torch.set_num_threads(order["threads"])
    workload, masking = Workload.from_description(order["workload"]), order["masking"]
    variant = Variant.from_dict(order["variant"])
    # A step of a tiny model first: what libraries load and set up belongs to the process.
    tiny = MAEConfig(image_size=64, frames=2, width=16, depth=1, heads=1, decoder_width=16,
                     decoder_depth=1, decoder_heads=1)  # fmt: skip
    first = replace(workload, config=tiny, batch=1)
    timed_step(build("a tiny one", variant, first, masking), phases=False)
    gc.collect()
    process = 0.0 if torch.device(workload.device).type == "cuda" else resident()
    contender = build("this one", variant, workload, masking)
    del workload.__dict__["state"]  # the first weights are copied into the model by now
    timed_step(contender, phases=False)
    if contender.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        timed_step(contender, phases=False)
        peak = float(torch.cuda.max_memory_allocated())
    else:
        CLEAR.write_text("5", encoding="ascii")
        timed_step(contender, phases=False)
        peak = peak_resident()
    weights = 4.0 * sum(p.numel() * p.element_size() for p in contender.parameters)
    return {
        "peak_bytes": peak,
        "process_bytes": process,
        "weights_bytes": weights,
        "per_clip_bytes": (peak - process - weights) / workload.batch,
    }


def resident() -> float:
    """Bytes that the process holds now."""
    return _status("VmRSS")


def peak_resident() -> float:
    """The most bytes that the process has held since the peak was last cleared."""
    return _status("VmHWM")


def _status(field: str) -> float:
    for line in STATUS.read_text(encoding="ascii").splitlines():
        if line.startswith(f"{field}:"):
            return float(line.split()[1]) * 1024
    raise RuntimeError(f"{STATUS} has no {field}")


if __name__ == "__main__":
    print(json.dumps(measure(json.loads(sys.argv[1]))))
