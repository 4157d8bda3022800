"""Views of pre-training: one run of frames, and a multi-scale crop for each sample."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from videomae_fast.data.order import below
from videomae_fast.data.views.crops import (
    OFFSETS,
    SCALE_PAIRS,
    SCALES,
    Box,
    Size,
    crop_views,
    multi_scale_box,
)
from videomae_fast.data.views.rule import WORDS_PER_SAMPLE, ClipShape, Plans
from videomae_fast.data.views.sampling import frame_ids, possible_starts
from videomae_fast.ops import crop_resize


@dataclass(frozen=True)
class MultiScale:
    """All samples show the same frames; a plan is a sample's box. Clips are uint8.

    Attributes:
        scales: the smallest and the largest of the official scales that are drawn.

    Raises:
        ValueError: no official scale lies between the two.
    """

    scales: tuple[float, float] = (min(SCALES), max(SCALES))

    dtype = np.dtype(np.uint8)

    def __post_init__(self) -> None:
        if not self.pairs:
            raise ValueError(
                f"none of the scales {', '.join(map(str, SCALES))} lies from {self.scales[0]} to "
                f"{self.scales[1]}"
            )

    @cached_property
    def pairs(self) -> tuple[int, ...]:
        """Those of :data:`SCALE_PAIRS` that are drawn, by index."""
        least, most = self.scales
        drawn = [least <= scale <= most for scale in SCALES]
        return tuple(i for i, (a, d) in enumerate(SCALE_PAIRS) if drawn[a] and drawn[d])

    def ids(
        self, duration: int, stride: int, words: Sequence[int], shape: ClipShape
    ) -> tuple[int, ...]:
        starts = possible_starts(duration, shape.frames, stride)
        start = below(words[0], starts)
        return tuple(frame_ids(duration, start, shape.frames, stride).tolist())

    def plans(
        self, frame: Size, duration: int, stride: int, words: Sequence[int], shape: ClipShape
    ) -> Plans:
        height, width = frame
        boxes = []
        for sample in range(shape.samples):
            pair, offset = words[1 + sample * WORDS_PER_SAMPLE :][:2]
            pair, offset = self.pairs[below(pair, len(self.pairs))], below(offset, len(OFFSETS))
            boxes.append(multi_scale_box(width, height, shape.size, pair, offset))
        return tuple(boxes)

    def fits(self, plan: Box, frame: Size) -> bool:
        left, top, width, height = plan
        return left + width <= frame[1] and top + height <= frame[0]

    def make(
        self, frames: NDArray[np.uint8], plans: Plans, shape: ClipShape, out: NDArray[Any] | None
    ) -> NDArray[Any]:
        return crop_views(frames, plans, shape.size, out)

    def make_on_device(
        self, videos: Sequence[Tensor], plans: Sequence[Plans], shape: ClipShape
    ) -> Tensor:
        views = [(i, *box, 0) for i, boxes in enumerate(plans) for box in boxes]
        return crop_resize(list(videos), torch.tensor(views, dtype=torch.int64), shape.size)


MULTI_SCALE = MultiScale()
