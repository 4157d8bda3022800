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
    """

    boxes: NDArray[np.float64]
    classes: NDArray[np.int64]
    scores: NDArray[np.float64]
