"""The card as found: name, memory, clocks, limits; by nvidia-smi, which sets nothing here."""

from __future__ import annotations

import subprocess
from typing import Any

# nvidia-smi's name of a field, and what it is in a record
FIELDS = {
    "name": "name",
    "memory.total": "memory_MiB",
    "driver_version": "driver",
    "clocks.sm": "sm_MHz",
    "clocks.mem": "memory_MHz",
    "clocks.max.sm": "max_sm_MHz",
    "clocks.max.mem": "max_memory_MHz",
    "power.draw": "power_W",
    "power.limit": "power_limit_W",
    "temperature.gpu": "temperature_C",
}
ROOMY = 100 * 1024  # MiB: an H200 has 140 GiB, an H100 80


def card(which: str = "0") -> dict[str, Any]:
    """What nvidia-smi says now of one card (its number or "GPU-…" name).

    Returns:
        The values of :data:`FIELDS`, numbers as numbers, what the card does not tell as text
        ("[N/A]"); or {"unknown": why}.
    """
    command = ["nvidia-smi", "-i", which, f"--query-gpu={','.join(FIELDS)}"]
    try:
        done = subprocess.run(
            [*command, "--format=csv,noheader,nounits"],
            capture_output=True, text=True, timeout=20, check=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError) as error:
        return {"unknown": f"{type(error).__name__}: {error}"}
    values = [value.strip() for value in done.stdout.strip().split(",")]
    if len(values) != len(FIELDS):
        return {"unknown": f"nvidia-smi answered {done.stdout.strip()[:200]!r}"}
    return {name: _number(value) for name, value in zip(FIELDS.values(), values, strict=True)}


def clocks(which: str = "0") -> dict[str, Any]:
    """Those of :func:`card` that change while it works."""
    found = card(which)
    names = ("sm_MHz", "memory_MHz", "power_W", "temperature_C", "unknown")
    return {name: found[name] for name in names if name in found}


def giant_batch(found: dict[str, Any], *, full: bool = False) -> int:
    """Clips of ViT-g's steps that fit a card's memory, one contender at a time.

    Args:
        found: what :func:`card` returns.
        full: for ours and one strong baseline without checkpointing, which need less.

    Returns:
        128 or 64 (full), or 32 or 16: the larger one where there are 100 GiB or more.
    """
    memory = found.get("memory_MiB")
    roomy = isinstance(memory, float) and memory >= ROOMY
    if full:
        return 128 if roomy else 64
    return 32 if roomy else 16


def _number(value: str) -> float | str:
    try:
        return float(value)
    except ValueError:
        return value
