"""The share of a GPU's peak that a run reaches: MFU and HFU.

``mfu`` counts what the official computation of a step takes, so it says how fast a run is,
whatever is left out or made again; ``hfu`` counts what is computed here, blocks that backward makes
again included, so it says how busy the GPU is.
"""

from __future__ import annotations

from typing import Final

import torch

from videomae_fast.training.parallel.world import World
from videomae_fast.training.step import uses_bf16
from videomae_fast.training.task import Counted, Settings, Work

PEAKS: Final = {
    "B200": 2250e12,
    "H200": 989e12,
    "H100 NVL": 835e12,
    "H100 PCIe": 756e12,
    "H100": 989e12,
    "A100": 312e12,
    "L40S": 362e12,
    "L40": 181e12,
    "L4": 121e12,
    "A10G": 70e12,
    "A10": 125e12,
    "A30": 165e12,
}
"""bf16 flop/s without sparsity, by NVIDIA's data sheets; of several names the first one counts."""

_FLOP: Final = 6
"""Of a multiply-add in a step: two forward, four backward."""
_AGAIN: Final = 2
"""More, where backward makes the forward pass again."""


def peak_of(device: torch.device) -> float | None:
    """Flop/s in bf16 by the device's data sheet; None of a CPU, and of GPUs that are not listed."""
    if device.type != "cuda":
        return None
    return peak_of_name(torch.cuda.get_device_name(device))


def peak_of_name(name: str) -> float | None:
    """That of a GPU by its name."""
    words = name.replace("-", " ").split()
    for known, peak in PEAKS.items():
        if all(word in words for word in known.split()):
            return peak
    return None


class Utilization:
    """Of one run; None of its numbers where no peak is known, and in fp32, which has others.

    Args:
        objective: of the run; one that is not :class:`Counted` has no numbers.
    """

    def __init__(self, objective: object, settings: Settings, world: World) -> None:
        peak = peak_of(world.device) if uses_bf16(settings, world.device) else None
        self._work: Work | None = None
        if peak is not None and isinstance(objective, Counted):
            self._work = objective.work()
            self._peak = peak * world.size

    def shares(self, clips_per_s: float) -> dict[str, float]:
        """``mfu`` and ``hfu`` at a speed of all processes, or nothing."""
        if self._work is None:
            return {}
        again = _AGAIN if self._work.again else 0
        return {
            "mfu": clips_per_s * _FLOP * self._work.official / self._peak,
            "hfu": clips_per_s * (_FLOP + again) * self._work.computed / self._peak,
        }
