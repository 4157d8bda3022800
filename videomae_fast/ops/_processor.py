"""What the processor's maker means for torch's matmuls on the CPU."""

from __future__ import annotations

from pathlib import Path

import torch


def _why_no_gain() -> str | None:
    if "AVX512" not in torch.backends.cpu.get_cpu_capability():
        return "the processor has no AVX-512"
    try:
        intel = "GenuineIntel" in Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return "the processor's maker is unknown"
    return "torch's own matmul uses AVX-512 on Intel's processors" if intel else None


# Why code with AVX-512 gains nothing over torch's own fp32 matmuls, or None: MKL's choose by the
# maker, and leave AVX-512 unused on others than Intel's. Once, at import, so that torch.compile
# finds a plain constant.
WHY_NO_GAIN = _why_no_gain()
