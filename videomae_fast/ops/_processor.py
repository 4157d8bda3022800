"""What the processor's maker means for torch's matmuls on the CPU."""

from __future__ import annotations

from pathlib import Path

import torch


def _why_no_gain() -> str | None:
    capability = torch.backends.cpu.get_cpu_capability()
    if not capability.startswith(("AVX2", "AVX512")):
        return "the processor has no AVX2"
    try:
        intel = "GenuineIntel" in Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return "the processor's maker is unknown"
    return "torch's own matmul is made for Intel's processors" if intel else None


# Why other code is not taken for torch's own fp32 matmuls, or None. MKL's choose by the maker: on
# others than Intel's they leave AVX-512 unused.
# Once, at import, so that torch.compile finds a plain constant.
WHY_NO_GAIN = _why_no_gain()

AVX512: bool = torch.backends.cpu.get_cpu_capability().startswith("AVX512")
