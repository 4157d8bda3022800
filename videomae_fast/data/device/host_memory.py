"""Host memory for batches, which is used again once a batch is gone."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final
from weakref import ref

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

KEPT: Final = 4
"""Batches whose memory is kept: one in the step, one that is ready, one in the making, and one."""


class HostMemory:
    """Uninitialised memory for one batch after the other.

    A fresh batch of fp32 clips is some hundred MB, whose pages the system finds and clears while
    they are first written: that may take ten times as long as writing them. So memory is taken
    again when no tensor lies in it any more: each is made from a view of its own, which goes with
    the tensor's storage. Page-locked memory torch keeps itself.

    Args:
        pinned: page-locked, for copies to a GPU.
    """

    def __init__(self, *, pinned: bool) -> None:
        self._pinned = pinned
        # Memory, and what gives the view that is in use, or None
        self._kept: list[tuple[NDArray[np.uint8], Callable[[], object]]] = []

    def take(self, shape: tuple[int, ...]) -> Tensor:
        """uint8 of this shape, contiguous, not initialised."""
        if self._pinned:
            return torch.empty(shape, dtype=torch.uint8, pin_memory=True)
        size = math.prod(shape)
        free = (m for m, in_use in self._kept if m.size == size and in_use() is None)
        memory = next(free, None)
        if memory is None:
            # NumPy asks for huge pages where torch does not: a quarter of the time to fill a batch
            memory = np.empty(size, dtype=np.uint8)
        view = memory.view()
        others = [one for one in self._kept if one[0] is not memory]
        self._kept = [*others[-(KEPT - 1) :], (memory, ref(view))]
        return torch.from_numpy(view).view(shape)
