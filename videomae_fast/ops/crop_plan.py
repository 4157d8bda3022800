"""What a crop and resize needs to know of each view, computed once on the host for all backends.

The filter is Pillow's: a triangle as wide as a source pixel, or as an output pixel where that is
wider; weights normalised in float64, then rounded to 22 bits behind the point.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Final, NamedTuple

import torch
from torch import Tensor

PRECISION: Final = 22  # bits behind the point of a weight
VIEW_FIELDS: Final = 6  # clip, left, top, width, height, flip
MOST_TAPS: Final = 16_000  # up to here no sum of rounded weights exceeds 255 grey levels


class View(NamedTuple):
    """One row of an op's `views`, lengths in pixels."""

    clip: int
    left: int
    top: int
    width: int
    height: int
    flip: bool


class CropPlan(NamedTuple):
    """What the kernels read, on the CPU.

    Attributes:
        views: int64 [V, 11]: clip, address of the box's first byte in frame 0, bytes from frame to
            frame and from row to row, width and height of the box, place and taps of the table
            across, place and taps of the table down, flip.
        tables: int32 [N], the tables of :func:`filter_table` one after the other, each once.
    """

    views: Tensor
    tables: Tensor


def read_views(views: Tensor, clips: Sequence[Tensor]) -> list[View]:
    """The rows of `views` [V, 6], checked against the clips [T, H, W, 3].

    Raises:
        ValueError: no such clip, a box that leaves its frames or is empty, a flip other than 0, 1.
    """
    found = []
    for number, (clip, left, top, width, height, flip) in enumerate(views.tolist()):
        if not 0 <= clip < len(clips):
            raise ValueError(f"view {number}: there are {len(clips)} clips, no clip {clip}")
        _, rows, columns, _ = clips[clip].shape
        box = (left, top, width, height)
        if min(width, height) < 1:
            raise ValueError(f"view {number}: box {box} must be at least one pixel")
        if min(left, top) < 0 or left + width > columns or top + height > rows:
            raise ValueError(f"view {number}: box {box} lies outside frames of {columns} x {rows}")
        if flip not in (0, 1):
            raise ValueError(f"view {number}: flip must be 0 or 1, not {flip}")
        found.append(View(clip, left, top, width, height, bool(flip)))
    return found


@lru_cache(maxsize=1024)
def filter_table(length: int, size: int) -> Tensor:
    """Where and with which weights `size` output pixels read `length` source pixels.

    Returns:
        int32 [size, 1 + taps]: the first source pixel, then the weights of it and those that
        follow, times 2**22. All of them lie in 0..length - 1; weights that are not needed are 0.

    Raises:
        ValueError: more than 16,000 pixels would meet in one.

    Source: Pillow, src/libImaging/Resample.c (precompute_coeffs, normalize_coeffs_8bpc).
    """
    scale = length / size
    support = max(scale, 1.0)
    centre = (torch.arange(size, dtype=torch.float64) + 0.5) * scale
    first = (centre - support + 0.5).clamp(min=0).long()
    end = (centre + support + 0.5).long().clamp(max=length)
    pixel = first[:, None] + torch.arange(int((end - first).max()))
    weight = 1 - ((pixel - centre[:, None] + 0.5) * (1 / support)).abs()
    weight = torch.where(pixel < end[:, None], weight.clamp(min=0), 0)
    total = torch.zeros(size, dtype=torch.float64)
    for column in weight.T:  # in Pillow's order: another one rounds differently
        total += column
    fixed = (weight / total[:, None] * 2**PRECISION + 0.5).long()
    taps = int((fixed != 0).any(0).nonzero().max()) + 1
    if taps > MOST_TAPS:
        raise ValueError(f"{length} pixels to {size}: shrinks by more than {MOST_TAPS // 2} times")
    # Rows near the end begin earlier, so that none reads beyond it.
    start = first.clamp(max=length - taps)
    column = torch.arange(taps) - (first - start)[:, None]
    fixed = torch.where(column < 0, 0, fixed.gather(1, column.clamp(min=0)))
    return torch.cat([start[:, None], fixed], 1).int()


def crop_plan(clips: Sequence[Tensor], views: Tensor, height: int, width: int) -> CropPlan:
    """The plan of `views` [V, 6] of clips whose pixels are dense and that stay where they are.

    Raises:
        ValueError: as :func:`read_views` and :func:`filter_table` do.
    """
    place: dict[tuple[int, int], int] = {}
    tables: list[Tensor] = []
    used = 0

    def table(length: int, size: int) -> tuple[int, int]:
        nonlocal used
        found = filter_table(length, size)
        if (length, size) not in place:
            place[length, size] = used
            tables.append(found.flatten())
            used += found.numel()
        return place[length, size], found.shape[1] - 1

    rows = []
    for view in read_views(views, clips):
        clip = clips[view.clip]
        frame_stride, row_stride = clip.stride()[:2]
        rows.append(
            (
                view.clip,
                clip.data_ptr() + view.top * row_stride + view.left * 3,
                frame_stride,
                row_stride,
                view.width,
                view.height,
                *table(view.width, width),
                *table(view.height, height),
                view.flip,
            )
        )
    return CropPlan(
        torch.tensor(rows, dtype=torch.int64).reshape(len(rows), 11),
        torch.cat(tables) if tables else torch.zeros(0, dtype=torch.int32),
    )
