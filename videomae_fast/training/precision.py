"""What a run's precision costs on the processor at hand."""

from __future__ import annotations

from pathlib import Path
from typing import Final

_CPUINFO: Final = Path("/proc/cpuinfo")


def why_bf16_is_slow(path: Path = _CPUINFO) -> str | None:
    """Why matmuls in bf16 are slower than in fp32 on this x86 processor.

    Args:
        path: Linux's description of the processors.

    Returns:
        A sentence; None where it multiplies bf16 itself, or where that is not known.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError:
        return None
    flags = next((line.split() for line in text.splitlines() if line.startswith("flags")), [])
    if "avx2" not in flags or "avx512_bf16" in flags or "amx_bf16" in flags:
        return None
    return "the processor has neither AVX-512 BF16 nor AMX, so its products are emulated"
