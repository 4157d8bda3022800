"""Views of fine-tuning: the same frames for all samples, each changed at random by itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from videomae_fast.data.augment.policy import Augmentation, AugmentSettings, draw_augmentation
from videomae_fast.data.order import below
from videomae_fast.data.randomness import Randomness
from videomae_fast.data.views.crops import Size
from videomae_fast.data.views.labelled_frames import (
    dense_draws,
    dense_ids,
    sparse_draws,
    sparse_ids,
)
from videomae_fast.data.views.rule import WORDS_PER_SAMPLE, ClipShape, Plans
from videomae_fast.ops import AugmentedView, augmented_views

Sampling = Literal["dense", "sparse"]


@dataclass(frozen=True)
class Augmented:
    """A plan is a sample's :class:`Augmentation`. Clips are fp32, normalised.

    Attributes:
        sampling: dense clips have neighbouring frames, sparse ones spread over the whole video.
        settings: what is drawn.
    """

    sampling: Sampling = "dense"
    settings: AugmentSettings = field(default_factory=AugmentSettings)
    dtype = np.dtype(np.float32)

    def ids(
        self, duration: int, stride: int, words: Sequence[int], shape: ClipShape
    ) -> tuple[int, ...]:
        frames = shape.frames
        if self.sampling == "sparse":
            rng, places = Randomness(words[0]), sparse_draws(duration, frames)
            found = sparse_ids(duration, frames, [rng.below(places) for _ in range(frames)])
        else:
            draw = below(words[0], dense_draws(duration, frames, stride))
            found = dense_ids(duration, frames, stride, draw)
        return tuple(found.tolist())

    def plans(
        self, frame: Size, duration: int, stride: int, words: Sequence[int], shape: ClipShape
    ) -> Plans:
        plans = []
        for sample in range(shape.samples):
            key = words[1 + sample * WORDS_PER_SAMPLE :][:2]
            plans.append(draw_augmentation(self.settings, frame, shape.size, Randomness(*key)))
        return tuple(plans)

    def fits(self, plan: Augmentation, frame: Size) -> bool:
        top, left, height, width = plan.crop
        return top + height <= frame[0] and left + width <= frame[1]

    def make(
        self, frames: NDArray[np.uint8], plans: Plans, shape: ClipShape, out: NDArray[Any] | None
    ) -> NDArray[Any]:
        if out is None:
            out = np.empty((len(plans), shape.frames, *shape.size, 3), dtype=np.float32)
        source = torch.from_numpy(np.ascontiguousarray(frames))
        views = [as_view(0, plan) for plan in plans]
        augmented_views([source], views, shape.size, out=torch.from_numpy(out))
        return out

    def make_on_device(
        self, videos: Sequence[Tensor], plans: Sequence[Plans], shape: ClipShape
    ) -> Tensor:
        views = [as_view(number, plan) for number, mine in enumerate(plans) for plan in mine]
        return augmented_views(list(videos), views, shape.size)


def as_view(clip: int, plan: Augmentation) -> AugmentedView:
    """What was drawn, as the op takes it, for a clip of this number."""
    return AugmentedView(
        clip=clip,
        crop=plan.crop,
        operations=tuple((one.name, one.argument) for one in plan.operations),
        flip=plan.flip,
        hole=plan.hole,
        seed=plan.noise >> 1,
    )
