"""What RandAugment's operations are to a kernel: rows of numbers, worked out once on the host.

An affine operation is the matrix of its map. Each row also says which part of its result is read: a
crop needs only a part of the last result, and that only a part of the one before.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

import torch
from torch import Tensor

Matrix = tuple[float, float, float, float, float, float]
"""Rows of the map from an output pixel's centre to a place of the input: x, then y."""

KINDS: Final = (
    "auto_contrast", "equalize", "invert", "posterize", "solarize", "solarize_add", "color",
    "contrast", "brightness", "sharpness",
)  # fmt: skip
"""Of operations, in the order of ``Kind`` in csrc/rand_augment.cpp."""
AFFINE: Final = len(KINDS)
PLAIN: Final = frozenset({"auto_contrast", "equalize", "invert"})
"""Those that take no argument."""
OF_THE_WHOLE: Final = frozenset({"auto_contrast", "equalize", "contrast"})
"""Those that take statistics of the whole frame before them."""
ROW: Final = 12  # kind, argument, matrix, region
_LEAST_BITS, _MOST_BITS = 0, 8


class Region(NamedTuple):
    """A part of a frame in pixels; the last row and column are not in it."""

    top: int
    bottom: int
    left: int
    right: int

    @staticmethod
    def of(crop: Sequence[int]) -> Region:
        """A (top, left, height, width)."""
        top, left, height, width = crop
        return Region(top, top + height, left, left + width)


def rotation(degrees: float, height: int, width: int) -> Matrix:
    """About the middle, by entries of 15 places, as Pillow rounds them."""
    angle = -math.radians(degrees % 360.0)
    cos, sin = round(math.cos(angle), 15), round(math.sin(angle), 15)
    middle_x, middle_y = width / 2, height / 2
    c = cos * -middle_x + sin * -middle_y + middle_x
    f = -sin * -middle_x + cos * -middle_y + middle_y
    return (cos, sin, c, -sin, cos, f)


MATRICES: Final[dict[str, Callable[[float, int, int], Matrix]]] = {
    "rotate": rotation,
    "shear_x": lambda slope, height, width: (1, slope, 0, 0, 1, 0),
    "shear_y": lambda slope, height, width: (1, 0, 0, slope, 1, 0),
    "translate_x": lambda share, height, width: (1, 0, share * width, 0, 1, 0),
    "translate_y": lambda share, height, width: (1, 0, 0, 0, 1, share * height),
}
"""By the argument of an operation, and the height and width of the frames."""

NAMES: Final = (*KINDS, *MATRICES)


def check_operations(operations: Sequence[tuple[str, float | None]]) -> None:
    """Checks names and arguments.

    Raises:
        ValueError: an unknown operation, or an argument that is missing, not wanted or no number.
    """
    for name, argument in operations:
        if name not in NAMES:
            raise ValueError(f"unknown operation {name!r}; there are {', '.join(NAMES)}")
        if (argument is None) != (name in PLAIN):
            raise ValueError(f"{name} takes {'no' if name in PLAIN else 'an'} argument")
        if argument is not None and not math.isfinite(argument):
            raise ValueError(f"{name}: {argument} is no number")
        if name == "posterize" and not _LEAST_BITS <= (argument or 0) <= _MOST_BITS:
            raise ValueError(f"posterize keeps {_LEAST_BITS} to {_MOST_BITS} bits, not {argument}")


def operation_rows(
    operations: Sequence[tuple[str, float | None]], height: int, width: int, read: Region
) -> list[list[float]]:
    """A row for each operation.

    Args:
        operations: checked, in their order.
        height, width: of the frames in pixels.
        read: the part of the last result that is read.

    Returns:
        Rows of kind, argument, the matrix's six values (0 where there is none), and top, bottom,
        left and right of the part of the result that is read.
    """
    rows: list[list[float]] = []
    for name, argument in reversed(operations):
        if name in MATRICES:
            matrix = MATRICES[name](float(argument or 0), height, width)
            row = [AFFINE, 0.0, *matrix, *read]
            read = _read_by(matrix, read, height, width)
        else:
            row = [KINDS.index(name), argument or 0.0, *[0.0] * 6, *read]
            if name in OF_THE_WHOLE:
                read = Region(0, height, 0, width)
            elif name == "sharpness":
                read = Region(
                    max(read.top - 1, 0),
                    min(read.bottom + 1, height),
                    max(read.left - 1, 0),
                    min(read.right + 1, width),
                )
        rows.insert(0, [float(value) for value in row])
    return rows


def rows_tensor(rows: Sequence[Sequence[float]]) -> Tensor:
    """Rows as fp64 [N, ROW] on the CPU."""
    return torch.tensor(rows, dtype=torch.float64).reshape(-1, ROW)


def _read_by(matrix: Matrix, region: Region, height: int, width: int) -> Region:
    """The pixels that the cubic reads for those of a region; a pixel more, for roundings."""
    a, b, c, d, e, f = matrix
    corners = [
        (x, y)
        for x in (region.left + 0.5, region.right - 0.5)
        for y in (region.top + 0.5, region.bottom - 0.5)
    ]
    left, right = _neighbours([a * x + b * y + c for x, y in corners], width)
    top, bottom = _neighbours([d * x + e * y + f for x, y in corners], height)
    return Region(top, bottom, left, right)


def _neighbours(places: Sequence[float], length: int) -> tuple[int, int]:
    first, last = math.floor(min(places) - 0.5) - 2, math.floor(max(places) - 0.5) + 3
    return min(max(first, 0), length - 1), min(max(last, 0), length - 1) + 1
