"""Boxes in pixels: float [N, 4], the columns and rows x1, y1, x2, y2, the last ones included."""

from __future__ import annotations

import torch
from torch import Tensor

Size = tuple[int, int]
"""Height and width in pixels."""

EXTENSION = (0.1, 0.05)
"""What a box is widened by at a test, of its width and height."""
OUTWARDS = (0.2, 0.1)
"""How far an edge may move out of a box in training, of its width and height."""
INWARDS = (0.1, 0.05)


def from_corner_and_size(boxes: Tensor, size: Size) -> tuple[Tensor, Tensor]:
    """Boxes x, y, width, height as annotation files have them, within their frame.

    Returns:
        The boxes that are not empty, float [M, 4], and which they are, bool [N].
    """
    low = boxes[:, :2]
    found = clipped(torch.cat([low, low + boxes[:, 2:] - 1], 1), size)
    kept = (found[:, 2:] > found[:, :2]).all(1)
    return found[kept], kept


def clipped(boxes: Tensor, size: Size) -> Tensor:
    """Boxes cut off at the frame's edges."""
    last = torch.tensor([size[1] - 1, size[0] - 1] * 2, dtype=boxes.dtype, device=boxes.device)
    return boxes.clamp(min=0).minimum(last)


def resized(boxes: Tensor, old: Size, new: Size) -> Tensor:
    """Boxes of a frame that was resized."""
    return boxes * boxes.new_tensor([new[1] / old[1], new[0] / old[0]] * 2)


def flipped(boxes: Tensor, width: int) -> Tensor:
    """Boxes of a frame of this width that was flipped left to right."""
    left, top, right, bottom = boxes.unbind(1)
    return torch.stack([width - right - 1, top, width - left - 1, bottom], 1)


def extended(boxes: Tensor, size: Size, by: tuple[float, float] = EXTENSION) -> Tensor:
    """Boxes as a test has them: wider by a share of their width and height, half on each side.

    Source: the official AVA code.
    """
    more = _sides(boxes) * boxes.new_tensor(by) / 2
    return clipped(torch.cat([boxes[:, :2] - more, boxes[:, 2:] + more], 1), size)


def moved(
    boxes: Tensor,
    draws: Tensor,
    size: Size,
    outwards: tuple[float, float] = OUTWARDS,
    inwards: tuple[float, float] = INWARDS,
) -> Tensor:
    """Boxes as training has them: each edge moved by itself, at least a pixel apart.

    Args:
        boxes: float [N, 4].
        draws: float [N, 4], evenly drawn in 0..1: for x1, y1, x2, y2.
        size: of the frame, at whose edges boxes end.
        outwards, inwards: the furthest that an edge moves, in shares of the width and height.

    Raises:
        ValueError: another number of draws.

    Source: the official AVA code.
    """
    if draws.shape != boxes.shape:
        raise ValueError(f"{list(draws.shape)} draws for boxes {list(boxes.shape)}")
    side = _sides(boxes)
    out, into = side * boxes.new_tensor(outwards), side * boxes.new_tensor(inwards)
    low = boxes[:, :2] - out + draws[:, :2] * (out + into)
    high = boxes[:, 2:] - into + draws[:, 2:] * (out + into)
    return clipped(torch.cat([low, high.maximum(low + 1)], 1), size)


def _sides(boxes: Tensor) -> Tensor:
    """Widths and heights [N, 2]."""
    return boxes[:, 2:] - boxes[:, :2] + 1
