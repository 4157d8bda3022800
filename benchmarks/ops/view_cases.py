"""The ops that make training's views on the device, at real shapes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from benchmarks.common.workload import Workload
from benchmarks.ops.op_case import OpCase
from videomae_fast.data.views.crops import SCALES
from videomae_fast.ops import IMAGENET_MEAN, IMAGENET_STD, AugmentedView
from videomae_fast.ops.augmented_views import planned


def crop_case(workload: Workload) -> OpCase:
    """4 views of a video at the official scales; its frames are 8/7 as high (256 for 224)."""
    t, height, width = workload.frames.shape[1:4]
    rows, columns = height * 8 // 7, width * 32 // 21
    videos = -(-workload.batch // 4)
    views, read = [], 0
    for number in range(workload.batch):
        scale = SCALES[number % 4]
        across, down = int(rows * scale), int(rows * scale)
        views.append((number // 4, (columns - across) // 2, (rows - down) // 2, across, down, 0))
        read += across * down

    def args() -> tuple[Any, ...]:
        shape, device = (videos, t, rows, columns, 3), workload.device
        clips = torch.randint(0, 256, shape, dtype=torch.uint8, device=device)
        return list(clips), torch.tensor(views), height, width, None

    moved = 3 * t * (read + workload.batch * height * width)
    return OpCase("crop_resize", "views of a batch", args, moved, compiles=False)


# Every way in which pixels are counted and made, one after the other
_CHAIN = (("contrast", 1.6), ("rotate", 20.0), ("equalize", None), ("sharpness", 1.6))


def augment_case(workload: Workload) -> OpCase:
    """2 samples of a video, of which the crop takes all; its frames are 8/7 as high."""
    t, height, width = workload.frames.shape[1:4]
    rows, columns = height * 8 // 7, width * 32 // 21
    videos, frame = -(-workload.batch // 2), height * 8 // 7 * (width * 32 // 21) * 3
    views = [
        AugmentedView(
            number // 2, (0, 0, rows, columns), _CHAIN, hole=(0, 0, height // 3, width // 3)
        )
        for number in range(workload.batch)
    ]

    def args() -> tuple[Any, ...]:
        shape, device = (videos, t, rows, columns, 3), workload.device
        clips = list(torch.randint(0, 256, shape, dtype=torch.uint8, device=device))
        plan = planned(clips, views, (height, width))
        return clips, *plan, height, width, list(IMAGENET_MEAN), list(IMAGENET_STD), None

    # Counted twice, made twice, read by the crop; each made twice is written, too
    moved = workload.batch * t * (7 * frame + 4 * height * width * 3)
    return OpCase("augmented_views", "views of a batch", args, moved, compiles=False)


def mix_case(workload: Workload, random: Callable[..., Tensor]) -> OpCase:
    """Half of the clips are blended, half have a box of their partner's."""
    batch, (t, height, width) = workload.batch, workload.frames.shape[1:4]

    def args() -> tuple[Any, ...]:
        clips = random(batch, t, height, width, 3)
        own = torch.full((batch,), 0.3, dtype=torch.float64, device=workload.device)
        boxes = torch.tensor([0, height // 2, 0, width // 2], device=workload.device)
        boxed = torch.arange(batch, device=workload.device)[:, None] % 2
        return clips, own, boxes * boxed

    moved = 2 * batch * t * height * width * 3 * random(1).element_size()
    return OpCase("mix_clips", "a batch", args, moved)


def resize_case(workload: Workload) -> OpCase:
    """A detector's frames to 8/7 of the clip (256 for 224), from frames half as high again."""
    t, height, width = workload.frames.shape[1:4]
    rows, columns = height * 8 // 7, width * 32 // 21

    def args() -> tuple[Any, ...]:
        shape, device = (t, rows * 3 // 2, columns * 3 // 2, 3), workload.device
        return torch.randint(0, 256, shape, dtype=torch.uint8, device=device), rows, columns

    moved = t * 3 * rows * columns * 13 // 4
    return OpCase("bilinear_resize", "frames of a video", args, moved)


def jitter_case(workload: Workload) -> OpCase:
    """A detector's clips, each by other shifts, up to the official ones."""
    frames = workload.frames.to(workload.device)

    def args() -> tuple[Any, ...]:
        turn = torch.arange(len(frames), device=workload.device)[:, None] % 2 * 2 - 1
        return frames, turn * torch.tensor([10, 26, 26], device=workload.device)

    return OpCase("hsv_jitter", "a batch", args, 2 * frames.numel())
