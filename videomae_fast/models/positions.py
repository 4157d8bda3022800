"""Position tables: the fixed sinusoid, kept on the device, or a learned parameter."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from videomae_fast.masks import Grid


def sinusoid_table(positions: int, width: int, device: torch.device | str = "cpu") -> Tensor:
    """fp32 [positions, width]: sines at even, cosines at odd columns, over the flattened position.

    ``angle[n, j] = n / 10000 ** (2 * (j // 2) / width)``, computed in fp64 and rounded once.

    Source: get_sinusoid_encoding_table in models/modeling_finetune.py of the official V2 code.
    """
    position = torch.arange(positions, dtype=torch.float64, device=device)[:, None]
    column = torch.arange(width, dtype=torch.float64, device=device)
    angle = position / 10000 ** (2 * (column // 2) / width)
    even = torch.arange(width, device=device) % 2 == 0
    return torch.where(even, angle.sin(), angle.cos()).to(torch.float32)


OtherGrids = Literal["interpolated", "recomputed"]
"""Where clips have another grid than the table: see :func:`interpolate_table`, or the official
code's way, a sinusoid over the new grid's flattened positions, which misplaces the rows of trained
weights."""


def interpolate_table(table: Tensor, trained: Grid, grid: Grid) -> Tensor:
    """A position table for another grid: the trained one, stretched in space and time.

    Bicubic within each time slot, then linear over time, in fp32, pixel centres at the same
    relative places (``align_corners=False``).

    Args:
        table: [trained.tokens, width].
        trained: the grid that the weights were trained with.
        grid: the grid of the clips.

    Returns:
        fp32 [grid.tokens, width]; `table` itself where the grids are equal.

    Source: the AVA code and OpenTAD interpolate so in space; the official code's own interpolation
    does nothing.
    """
    if _same(grid, trained):
        return table
    # Both steps whatever the sizes, as equal ones give the same values: one graph under compile.
    planes = rearrange(table.float(), "(t h w) c -> t c h w", t=trained.slots, h=trained.height)
    planes = F.interpolate(planes, (grid.height, grid.width), mode="bicubic", align_corners=False)
    lines = rearrange(planes, "t c h w -> 1 (c h w) t")
    lines = F.interpolate(lines, grid.slots, mode="linear", align_corners=False)
    return rearrange(lines, "1 (c h w) t -> (t h w) c", h=grid.height, w=grid.width)


def _same(one: Grid, other: Grid) -> bool:
    """Whether two grids are equal, as one condition: torch.export guards each that it meets."""
    apart = (one.slots - other.slots, one.height - other.height, one.width - other.width)
    return sum(each * each for each in apart) == 0


class SinusoidPositions(nn.Module):
    """The fixed table of one grid, a buffer outside the state dict.

    The official code keeps its tables on the host, expands them to the batch and copies them to
    the device each step.

    Args:
        grid: the grid that the weights are trained with.
        width: of the table.
        other_grids: what clips of other grids get.
    """

    table: Tensor

    def __init__(self, grid: Grid, width: int, other_grids: OtherGrids = "interpolated") -> None:
        super().__init__()
        self.grid, self.other_grids = grid, other_grids
        # Computed on the CPU, so that it is the same everywhere; within ``torch.device("meta")`` it
        # is on meta as all else, and not there by surprise
        table = sinusoid_table(grid.tokens, width).to(torch.get_default_device())
        self.register_buffer("table", table, persistent=False)

    def remake(self) -> None:
        """Makes the table anew, where it lies: no state dict has it, and memory that was only
        allocated (``to_empty``) has anything in it."""
        made = sinusoid_table(self.grid.tokens, self.table.shape[1])
        self.table.copy_(made)

    def forward(self, grid: Grid) -> Tensor:
        """fp32 [tokens, width] for clips of this grid."""
        if _same(grid, self.grid):
            return self.table
        if self.other_grids == "recomputed":
            return sinusoid_table(grid.tokens, self.table.shape[1], self.table.device)
        return interpolate_table(self.table, self.grid, grid)


def remake_tables(model: nn.Module) -> None:
    """Makes anew what no state dict holds of a model that was built on meta and then allocated.

    Raises:
        RuntimeError: it has such a buffer in a module that can't make it.
    """
    for path, module in model.named_modules():
        lost = module._non_persistent_buffers_set
        if isinstance(module, SinusoidPositions):
            module.remake()
        elif lost:
            raise RuntimeError(
                f"{path}: {', '.join(sorted(lost))} is in no state dict, and "
                f"{type(module).__name__} has no way to make it again"
            )


def learned_positions(grid: Grid, width: int) -> nn.Parameter:
    """A learned table [1, tokens, width], truncated normal with standard deviation 0.02."""
    table = nn.Parameter(torch.zeros(1, grid.tokens, width))
    nn.init.trunc_normal_(table, std=0.02, a=-0.02, b=0.02)
    return table
