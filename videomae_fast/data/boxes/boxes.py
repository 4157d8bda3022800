"""Boxes of a key frame."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Key = tuple[str, str]
"""A key frame: video and timestamp, as the csv has them."""


@dataclass
class Boxes:
    """Boxes of one key frame.

    Attributes:
        boxes: float64 [N, 4]: x1, y1, x2, y2 in shares of the width and height.
        classes: int64 [N].
        scores: float64 [N]; all 1 for annotations.
        line: of the file that names the key frame first, from 1; 0 where no file does.
    """

    boxes: NDArray[np.float64]
    classes: NDArray[np.int64]
    scores: NDArray[np.float64]
    line: int = 0


def overlaps(one: NDArray[np.float64], other: NDArray[np.float64]) -> NDArray[np.float64]:
    """Intersection over union of boxes [N, 4] and [M, 4] (x1, y1, x2, y2), float64 [N, M]."""
    low = np.maximum(one[:, None, :2], other[None, :, :2])
    high = np.minimum(one[:, None, 2:], other[None, :, 2:])
    shared = (high - low).clip(min=0).prod(-1)
    areas = [(each[:, 2:] - each[:, :2]).prod(-1) for each in (one, other)]
    union = areas[0][:, None] + areas[1][None] - shared
    out: NDArray[np.float64] = np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)
    return out
