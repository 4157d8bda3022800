"""Position tables: the fixed sinusoid, kept on the device, or a learned parameter."""

from __future__ import annotations

import torch
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


class SinusoidPositions(nn.Module):
    """The fixed table of one grid, a buffer outside the state dict; other grids' are computed.

    The official code keeps its tables on the host, expands them to the batch and copies them to
    the device each step.
    """

    table: Tensor

    def __init__(self, grid: Grid, width: int) -> None:
        super().__init__()
        self.register_buffer("table", sinusoid_table(grid.tokens, width), persistent=False)

    def forward(self, grid: Grid) -> Tensor:
        """fp32 [tokens, width] for clips of this grid."""
        if grid.tokens == self.table.shape[0]:
            return self.table
        return sinusoid_table(grid.tokens, self.table.shape[1], self.table.device)


def learned_positions(grid: Grid, width: int) -> nn.Parameter:
    """A learned table [1, tokens, width], truncated normal with standard deviation 0.02."""
    table = nn.Parameter(torch.zeros(1, grid.tokens, width))
    nn.init.trunc_normal_(table, std=0.02, a=-0.02, b=0.02)
    return table
