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
from benchmarks.official.step import normalized_images
from videomae_fast.masking import Grid

CELL = 4


def tube_mask(grid: Grid, masked: int, random: np.random.Generator) -> np.ndarray[Any, Any]:
    """[slots, space], 1 = masked: the same positions in each slot."""
    space = np.hstack([np.zeros(grid.space - masked), np.ones(masked)])
    random.shuffle(space)
    return np.tile(space, (grid.slots, 1))


def running_cell_maps(grid: Grid, masked: int) -> np.ndarray[Any, Any]:
    """[4, slots, space], 1 = masked: the four patterns, made once.

    Raises:
        ValueError: an odd grid, which the official code does not cover with cells.
    """
    if grid.height % 2 or grid.width % 2:
        raise ValueError(f"the official running cell needs an even grid, not {grid}")
    run = np.hstack([np.ones(masked), np.zeros(CELL - masked)])
    maps = []
    for start in range(CELL):
        slots = []
        for slot in range(grid.slots):
            cell = np.roll(run, -(start + slot + 1)).reshape(2, 2)
            slots.append(np.tile(cell, (grid.height // 2, grid.width // 2)).flatten())
        maps.append(np.stack(slots))
    return np.stack(maps)


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
