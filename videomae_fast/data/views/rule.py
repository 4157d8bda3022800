"""What a decoded video becomes: the frames that are read, and the clips that are made of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from videomae_fast.data.views.crops import Size

# Random words of a draw: one for the frames, then this many for each sample (scale pair,
# place, mask seed, and one kept free for a flip).
WORDS_PER_SAMPLE = 4

Plans = tuple[Any, ...]
"""One for each sample: what a rule has drawn, or chosen, for it."""


@dataclass(frozen=True)
class ClipShape:
    """samples: clips of a video; frames: of a clip; size: (height, width) in pixels."""

    samples: int
    frames: int
    size: Size


class ViewRule(Protocol):
    """How clips are made, on the CPU or on a device, by plans that depend on the draw alone."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the clips: uint8, or fp32 where they are normalised."""
        ...

    def ids(
        self, duration: int, stride: int, words: Sequence[int], shape: ClipShape
    ) -> tuple[int, ...]:
        """Numbers of the frames that are read, rising; a number may occur several times."""
        ...

    def plans(
        self, frame: Size, duration: int, stride: int, words: Sequence[int], shape: ClipShape
    ) -> Plans:
        """What is done to frames of this (height, width)."""
        ...

    def fits(self, plan: Any, frame: Size) -> bool:
        """Whether a plan can be followed with frames of this (height, width)."""
        ...

    def make(
        self, frames: NDArray[np.uint8], plans: Plans, shape: ClipShape, out: NDArray[Any] | None
    ) -> NDArray[Any]:
        """Frames uint8 [N, H, W, 3] to clips [samples, frames, *size, 3], in `out` if given."""
        ...

    def make_on_device(
        self, videos: Sequence[Tensor], plans: Sequence[Plans], shape: ClipShape
    ) -> Tensor:
        """The same for several videos on one device, [videos * samples, frames, *size, 3]."""
        ...
