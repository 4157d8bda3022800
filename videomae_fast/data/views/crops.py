"""Crops: the official multi-scale crop and PIL's antialiased bilinear resize.

A box is ``(x, y, width, height)`` in pixels; a size is ``(height, width)`` in pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from videomae_fast import ops

Box = tuple[int, int, int, int]
Size = tuple[int, int]

SCALES: Final = (1.0, 0.875, 0.75, 0.66)
_SNAP: Final = 2  # pixels: a crop this close to the target becomes the target
# Quarters of the free room (across, down): corners, centre, edge middles, inner quarter points.
OFFSETS: Final = (
    *((0, 0), (4, 0), (0, 4), (4, 4)),
    (2, 2),
    *((0, 2), (4, 2), (2, 4), (2, 0)),
    *((1, 1), (3, 1), (1, 3), (3, 3)),
)
# Widths and heights are drawn together, at most one scale apart.
SCALE_PAIRS: Final = tuple(
    (across, down) for down in range(4) for across in range(4) if abs(across - down) <= 1
)


def multi_scale_box(width: int, height: int, size: Size, pair: int, offset: int) -> Box:
    """The crop of a frame for one draw of scales and place.

    Lengths are the short side times a scale, truncated, and the target's own where within 2 pixels
    of it. Unlike the official crop, which then shows up to 2 black pixels, a box never leaves the
    frame.

    Args:
        width: of the frame, in pixels.
        height: of the frame, in pixels.
        size: (height, width) that the crop is resized to.
        pair: index into :data:`SCALE_PAIRS` (10).
        offset: index into :data:`OFFSETS` (13).

    Returns:
        The box (x, y, width, height) in pixels.

    Source: VideoMAE V2, ``dataset/transforms.py`` (GroupMultiScaleCrop).
    """
    across, down = SCALE_PAIRS[pair]
    crop_width = _length(width, height, SCALES[across], size[1], width)
    crop_height = _length(width, height, SCALES[down], size[0], height)
    step_x, step_y = (width - crop_width) // 4, (height - crop_height) // 4
    quarters_x, quarters_y = OFFSETS[offset]
    return quarters_x * step_x, quarters_y * step_y, crop_width, crop_height


def centre_box(width: int, height: int, size: Size) -> Box:
    """The largest centred crop with the aspect of a size: resize-then-centre-crop in one.

    Args:
        width: of the frame, in pixels.
        height: of the frame, in pixels.
        size: (height, width) that the crop is resized to.

    Returns:
        The box (x, y, width, height) in pixels.
    """
    scale = min(width / size[1], height / size[0])
    crop_width = min(width, max(1, round(size[1] * scale)))
    crop_height = min(height, max(1, round(size[0] * scale)))
    return (width - crop_width) // 2, (height - crop_height) // 2, crop_width, crop_height


def crop_views(
    frames: NDArray[np.uint8],
    boxes: Sequence[Box],
    size: Size,
    out: NDArray[np.uint8] | None = None,
) -> NDArray[np.uint8]:
    """Views of one clip.

    Every frame is cropped to a box, then resized by PIL's bilinear filter, which is antialiased
    when it shrinks; no pixel outside the box has a part in the result. The backend is that of
    :func:`videomae_fast.ops.crop_resize`: all give the same bits.

    Args:
        frames: uint8 [T, H, W, 3].
        boxes: V boxes (x, y, width, height) in pixels, each for all frames.
        size: (height, width) of the views, in pixels.
        out: uint8 [V, T, height, width, 3] to write to; None takes new memory.

    Returns:
        uint8 [V, T, height, width, 3], which is ``out`` if given.

    Raises:
        ValueError: a box outside the frames, another layout of them, or an ``out`` that does
            not fit.
    """
    views = torch.tensor([(0, *box, 0) for box in boxes], dtype=torch.int64).reshape(-1, 6)
    # torch takes neither negative strides nor, without a warning, arrays that are read-only.
    clip = torch.from_numpy(np.require(frames, requirements=["C", "W"]))
    place = None if out is None else torch.from_numpy(out)
    result: NDArray[np.uint8] = ops.crop_resize([clip], views, size, out=place).numpy()
    return result


def crop_resize(frames: NDArray[np.uint8], box: Box, size: Size) -> NDArray[np.uint8]:
    """One view of a clip, as :func:`crop_views` makes it.

    Args:
        frames: uint8 [T, H, W, 3].
        box: (x, y, width, height) in pixels.
        size: (height, width) of the view, in pixels.

    Returns:
        uint8 [T, height, width, 3].

    Raises:
        ValueError: a box outside the frames, or another layout of them.
    """
    view: NDArray[np.uint8] = crop_views(frames, [box], size)[0]
    return view


def _length(width: int, height: int, scale: float, target: int, limit: int) -> int:
    length = int(min(width, height) * scale)
    if abs(length - target) <= _SNAP:
        length = target
    return min(max(length, 1), limit)
