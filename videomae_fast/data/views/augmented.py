"""Views of fine-tuning: the same frames for all samples, each changed at random by itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from videomae_fast.data.augment.policy import (
    Augmentation,
    AugmentSettings,
    draw_augmentation,
)
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
from videomae_fast.ops.rand_augment import rand_augment
from videomae_fast.ops.resized_view import resized_view

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
        for i, plan in enumerate(plans):
            out[i] = augmented(source, plan, shape.size).numpy()
        return out

    def make_on_device(
        self, videos: Sequence[Tensor], plans: Sequence[Plans], shape: ClipShape
    ) -> Tensor:
        return torch.stack(
            [
                augmented(frames, plan, shape.size)
                for frames, mine in zip(videos, plans, strict=True)
                for plan in mine
            ]
        )


def augmented(frames: Tensor, plan: Augmentation, size: Size) -> Tensor:
    """A clip as it was drawn.

    Args:
        frames: uint8 [T, H, W, 3], decoded.
        plan: what is done.
        size: (height, width) of the clip in pixels.

    Returns:
        fp32 [T, height, width, 3], normalised by ImageNet's statistics. What fills the hole depends
        on the kind of device.
    """
    changed = rand_augment(frames, [(one.name, one.argument) for one in plan.operations])
    clip = resized_view(changed, plan.crop, size, flip=plan.flip)
    if plan.hole is not None:
        top, left, height, width = plan.hole
        generator = torch.Generator(clip.device).manual_seed(plan.noise >> 1)
        noise = torch.randn((len(clip), height, width, 3), generator=generator, device=clip.device)
        clip[:, top : top + height, left : left + width] = noise
    return clip
