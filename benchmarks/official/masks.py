"""The official masks of a clip, made position by position on the CPU.

Source: dataset/masking_generator.py of the official V2 code.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from videomae_fast.masks import Grid

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
