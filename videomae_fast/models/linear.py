"""torch's linear module over the library's op."""

from __future__ import annotations

from torch import Tensor, nn

from videomae_fast.ops import linear


class Linear(nn.Linear):
    """nn.Linear whose matmul is `videomae_fast.ops.linear`."""

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.weight, self.bias)
