"""Views of validation and testing: every segment and crop of a video, out of one decode."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from videomae_fast.data.views.augmented import Sampling
from videomae_fast.data.views.crops import Size
from videomae_fast.data.views.evaluation_crops import (
    centre_corner,
    crop_corners,
    short_side_resized,
)
from videomae_fast.data.views.labelled_frames import (
    Ids,
    dense_ids,
    dense_test_ids,
    sparse_ids,
    sparse_test_ids,
)
from videomae_fast.data.views.rule import ClipShape, Plans
from videomae_fast.ops.bilinear_resize import bilinear_resize


@dataclass(frozen=True)
class View:
    """rows: which of the decoded frames; corner: top and left in the resized frame."""

    rows: tuple[int, ...]
    corner: tuple[int, int]


@dataclass(frozen=True)
class Evaluation:
    """A plan is a :class:`View`: segment by segment, and of each its crops. Clips are uint8.

    Frames are resized so that the short side is that of the clips, which are square.

    Attributes:
        sampling: dense or sparse, as in training.
        segments, crops: of a test; both 0 means validation's one clip from the middle.
    """

    sampling: Sampling = "dense"
    segments: int = 0
    crops: int = 0
    dtype = np.dtype(np.uint8)

    def __post_init__(self) -> None:
        if min(self.segments, self.crops) < 0 or (self.segments > 0) != (self.crops > 0):
            raise ValueError(
                f"segments ({self.segments}) and crops ({self.crops}) must both be at least 1, or "
                "both 0 for validation"
            )

    @property
    def views(self) -> int:
        """Of a video."""
        return max(1, self.segments * self.crops)

    def ids(
        self, duration: int, stride: int, words: Sequence[int], shape: ClipShape
    ) -> tuple[int, ...]:
        return tuple(np.unique(self._clips(duration, stride, shape.frames)).tolist())

    def plans(
        self, frame: Size, duration: int, stride: int, words: Sequence[int], shape: ClipShape
    ) -> Plans:
        side = _side(shape)
        resized = short_side_resized(frame, side)
        clips = self._clips(duration, stride, shape.frames)
        rows = np.searchsorted(np.unique(clips), clips)
        corners = (
            crop_corners(resized, side, self.crops)
            if self.crops
            else [centre_corner(resized, side)]
        )
        return tuple(View(tuple(each.tolist()), corner) for each in rows for corner in corners)

    def fits(self, plan: View, frame: Size) -> bool:
        """Wherever the frame's sides have the same relation: corners were chosen for it."""
        return min(frame) > 0

    def make(
        self, frames: NDArray[np.uint8], plans: Plans, shape: ClipShape, out: NDArray[Any] | None
    ) -> NDArray[Any]:
        if out is None:
            out = np.empty((len(plans), shape.frames, *shape.size, 3), dtype=np.uint8)
        _cut(torch.from_numpy(np.ascontiguousarray(frames)), plans, shape, torch.from_numpy(out))
        return out

    def make_on_device(
        self, videos: Sequence[Tensor], plans: Sequence[Plans], shape: ClipShape
    ) -> Tensor:
        views = len(plans[0])
        out = videos[0].new_empty((len(videos) * views, shape.frames, *shape.size, 3))
        for i, (frames, mine) in enumerate(zip(videos, plans, strict=True)):
            _cut(frames, mine, shape, out[i * views : (i + 1) * views])
        return out

    def _clips(self, duration: int, stride: int, frames: int) -> Ids:
        """int64 [segments, frames]."""
        if self.sampling == "sparse":
            if self.segments:
                return sparse_test_ids(duration, frames, self.segments)
            return sparse_ids(duration, frames)[None]
        if self.segments:
            return dense_test_ids(duration, frames, stride, self.segments)
        return dense_ids(duration, frames, stride)[None]


def _side(shape: ClipShape) -> int:
    if shape.size[0] != shape.size[1]:
        raise ValueError(f"views of an evaluation are square, not {shape.size}")
    return shape.size[0]


def _cut(frames: Tensor, plans: Plans, shape: ClipShape, out: Tensor) -> None:
    """Frames uint8 [N, H, W, 3] to all views, into `out` [views, T, side, side, 3]."""
    side = _side(shape)
    small = bilinear_resize(frames, short_side_resized((frames.shape[1], frames.shape[2]), side))
    for i, view in enumerate(plans):
        top, left = view.corner
        rows = torch.tensor(view.rows, device=small.device)
        out[i] = small[rows, top : top + side, left : left + side]
