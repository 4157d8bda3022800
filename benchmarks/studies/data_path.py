"""What a loader makes of a decoded clip before the step: the official way, and ours.

Official: an fp32 clip, normalised, and two boolean masks made position by position on the CPU.
Ours: the uint8 clip as it is and a 64-bit seed; pixels are normalised and masks made in the step.
Decoding, cropping and resizing come before and are the same work for both.

Source: dataset/masking_generator.py, dataset/build.py of the official V2 code.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.common.workload import Workload
from benchmarks.measure.timing import Summary
from benchmarks.official.masks import CELL, running_cell_maps, tube_mask
from benchmarks.official.step import normalized_images

Sample = tuple[Tensor, Tensor, Tensor]


class OfficialPath:
    """Per clip: (fp32 [3, T, H, W], encoder mask, decoder mask); and the batch of them."""

    def __init__(self, workload: Workload) -> None:
        self.grid = workload.config.grid
        self.spec = workload.spec("dual")
        self.maps = running_cell_maps(self.grid, self.spec.decoder_masked(self.grid))
        self.random = np.random.default_rng(workload.seed)

    def clip(self, frames: Tensor) -> Sample:
        images = normalized_images(frames[None])[0]
        encoder = tube_mask(self.grid, self.spec.encoder_masked(self.grid), self.random)
        decoder = np.copy(self.maps[self.random.integers(CELL)])
        return images, torch.from_numpy(encoder), torch.from_numpy(decoder)

    def batch(self, clips: Sequence[Tensor]) -> tuple[Tensor, ...]:
        parts = zip(*map(self.clip, clips), strict=True)
        images, encoder, decoder = (torch.stack(part) for part in parts)
        return images, encoder.flatten(1).bool(), decoder.flatten(1).bool()


class OurPath:
    """The batch of uint8 clips and their seeds."""

    def __init__(self, workload: Workload) -> None:
        self.random = np.random.default_rng(workload.seed)

    def batch(self, clips: Sequence[Tensor]) -> tuple[Tensor, ...]:
        return torch.stack(list(clips)), torch.from_numpy(
            self.random.integers(2**62, size=len(clips))
        )


def data_path(workload: Workload, repeats: int) -> dict[str, Any]:
    """Both, in turns, on one thread as in a loader's worker.

    Returns:
        By "official" and "ours": "seconds_per_clip" (a summary) and "bytes_per_clip", what the
        step is handed.
    """
    clips = list(workload.frames)
    paths: dict[str, Callable[[Sequence[Tensor]], tuple[Tensor, ...]]] = {
        "official": OfficialPath(workload).batch,
        "ours": OurPath(workload).batch,
    }
    taken: dict[str, list[float]] = {name: [] for name in paths}
    found: dict[str, Any] = {}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for _ in range(repeats):
            for name, make in paths.items():
                start = time.perf_counter()
                made = make(clips)
                taken[name].append((time.perf_counter() - start) / len(clips))
                found[name] = {"bytes_per_clip": sum(x.nbytes for x in made) / len(clips)}
    finally:
        torch.set_num_threads(threads)
    for name, seconds in taken.items():
        found[name]["seconds_per_clip"] = asdict(Summary.of(seconds))
    return found
