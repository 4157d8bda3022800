"""Seeds where something is drawn at every step."""

from __future__ import annotations

import torch


def seed_generators(device: torch.device, seed: int) -> None:
    """Seeds torch's own generators of the host and of one device, no others.

    ``torch.manual_seed`` seeds every kind of device, and for each that is not in use it formats the
    caller's stack, to be shown should it fail there later: half a millisecond of the host's time.

    Args:
        device: what is computed on.
        seed: 64 bits, as ``torch.manual_seed`` takes it.
    """
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        index = torch.cuda.current_device() if device.index is None else device.index
        torch.cuda.default_generators[index].manual_seed(seed)
