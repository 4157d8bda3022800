"""Where validation and test views are cut: after the short side is resized to the view's.

Source: ``VideoClsDataset`` in dataset/datasets.py of the official V2 code.
"""

from __future__ import annotations

Size = tuple[int, int]
"""Height and width in pixels."""
Corner = tuple[int, int]
"""Top and left in pixels."""


def short_side_resized(frame: Size, side: int) -> Size:
    """(height, width) of a frame whose short side becomes `side`, the long one cut to an integer.

    Raises:
        ValueError: a size below 1.
    """
    height, width = frame
    if min(height, width, side) < 1:
        raise ValueError(f"a frame of {frame} can't have a short side of {side}")
    if min(height, width) == side:
        return frame
    if width < height:
        return int(side * height / width), side
    return side, int(side * width / height)


def centre_corner(frame: Size, side: int) -> Corner:
    """Corner of validation's square of `side` in a resized frame; halves are rounded to even."""
    height, width = frame
    return round((height - side) / 2.0), round((width - side) / 2.0)


def crop_corners(frame: Size, side: int, crops: int) -> list[Corner]:
    """Corners of a test's squares of `side`, spread along the long side of a resized frame.

    One crop is the centre (where the official code divides by zero).

    Raises:
        ValueError: no crop, or a frame whose short side is not `side`.
    """
    height, width = frame
    if crops < 1:
        raise ValueError(f"crops ({crops}) must be at least 1")
    if min(height, width) != side:
        raise ValueError(f"the short side of {frame} is not {side}")
    if crops == 1:
        return [centre_corner(frame, side)]
    step = (max(height, width) - side) / (crops - 1)
    offsets = [int(k * step) for k in range(crops)]
    return [(offset, 0) if height >= width else (0, offset) for offset in offsets]
