"""Views of a clip with boxes: resized, cut, with other colours, flipped, and its boxes with it.

Source: the transforms of the official AVA code. Where a frame's short side is that of the views
already, it squashes the frame into the other orientation; not followed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from videomae_fast.data.boxes.geometry import Size, clipped, flipped, resized
from videomae_fast.data.randomness import Randomness
from videomae_fast.data.views.evaluation_crops import short_side_resized
from videomae_fast.ops import hsv_jitter
from videomae_fast.ops.bilinear_resize import bilinear_resize

BoxRule = Literal["repaired", "official"]
"""Boxes outside of a crop: "repaired" leaves them out, with their labels; "official" keeps them as
slivers at its edge. Both cut off those that lie partly within."""


@dataclass(frozen=True)
class DetectionViews:
    """What is drawn of a clip.

    Attributes:
        short_side: of the resized frames, in pixels; the long side has no bound.
        longest: training draws the short side from `short_side` to this; None: it is that.
        crop: side of training's square in pixels.
        hue, saturation, value: the greatest shifts of training, see
            :func:`~videomae_fast.ops.hsv_jitter.hsv_jitter`.
        flip: training's probability of a flip.
        boxes: what becomes of boxes outside of the crop.

    Raises:
        ValueError: a value out of range.
    """

    short_side: int = 256
    crop: int = 224
    hue: int = 10
    saturation: int = 26
    value: int = 26
    flip: float = 0.5
    boxes: BoxRule = "repaired"
    longest: int | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.crop <= self.short_side:
            raise ValueError(f"crop ({self.crop}) must be 1 to the short side, {self.short_side}")
        if self.longest is not None and self.longest < self.short_side:
            raise ValueError(f"longest ({self.longest}) is below short_side ({self.short_side})")
        if min(self.hue, self.saturation, self.value) < 0 or not 0 <= self.flip <= 1:
            raise ValueError(f"{self}: shifts must be at least 0 and flip a probability")
        if self.boxes not in ("repaired", "official"):
            raise ValueError(f"boxes ({self.boxes!r}) must be repaired or official")


@dataclass(frozen=True)
class DetectionView:
    """One view.

    Attributes:
        size: (height, width) of the resized frames.
        crop: (top, left, side) of a square of them; None for all.
        shifts: of hue, saturation and value.
        flip: left to right.
        boxes: what becomes of boxes outside of the crop.
    """

    size: Size
    crop: tuple[int, int, int] | None = None
    shifts: tuple[int, int, int] | None = None
    flip: bool = False
    boxes: BoxRule = "repaired"


@dataclass(frozen=True)
class PlannedView:
    """What is done to frames of a size (height, width)."""

    frame: Size
    view: DetectionView

    @property
    def size(self) -> Size:
        """(height, width) of the clip."""
        return self.view.size if self.view.crop is None else (self.view.crop[2],) * 2


def whole_view(settings: DetectionViews, frame: Size) -> DetectionView:
    """A test's view of frames (height, width): resized, nothing else."""
    return DetectionView(short_side_resized(frame, settings.short_side), boxes=settings.boxes)


def drawn_view(settings: DetectionViews, frame: Size, rng: Randomness) -> DetectionView:
    """A training view of frames (height, width)."""
    side = settings.short_side
    if settings.longest is not None:
        side += rng.below(settings.longest - side + 1)
    height, width = size = short_side_resized(frame, side)
    left = int(rng.uniform() * (width - settings.crop))
    top = int(rng.uniform() * (height - settings.crop))
    bounds = settings.hue, settings.saturation, settings.value
    hue, saturation, value = (rng.below(2 * bound + 1) - bound for bound in bounds)
    flip = rng.chance(settings.flip)
    crop = top, left, settings.crop
    return DetectionView(size, crop, (hue, saturation, value), flip, settings.boxes)


def viewed_frames(frames: Tensor, view: DetectionView) -> Tensor:
    """Frames uint8 [T, H, W, 3] to the view's, uint8 [T, h, w, 3].

    Raises:
        ValueError: wrong shape or dtype.
    """
    return viewed_clips([frames], [view])[0]


def viewed_clips(videos: Sequence[Tensor], views: Sequence[DetectionView]) -> Tensor:
    """A view of each of several videos, all made on their device.

    Frames are resized and cut video by video, colours of all clips moved together.

    Args:
        videos: uint8 [T, H, W, 3] each, of any sizes, of one length, on one device.
        views: one for each, whose clips have one size.

    Returns:
        uint8 [views, T, h, w, 3], the same bytes on any device.

    Raises:
        ValueError: wrong shapes or dtype, or clips of several sizes.
    """
    cut = []
    for frames, view in zip(videos, views, strict=True):
        clip = bilinear_resize(frames, view.size)
        if view.crop is not None:
            top, left, side = view.crop
            clip = clip[:, top : top + side, left : left + side]
        cut.append(clip)
    if len({clip.shape for clip in cut}) > 1:
        raise ValueError(f"clips must have one size, not {[list(clip.shape) for clip in cut]}")
    clips = torch.stack(cut)
    shifted = [i for i, view in enumerate(views) if view.shifts is not None]
    if shifted:
        shifts = torch.tensor([views[i].shifts for i in shifted], device=clips.device)
        if len(shifted) == len(views):
            clips = hsv_jitter(clips, shifts)
        else:
            clips[shifted] = hsv_jitter(clips[shifted], shifts)
    turned = [i for i, view in enumerate(views) if view.flip]
    if turned:
        clips[turned] = clips[turned].flip(3)
    return clips


def viewed_boxes(boxes: Tensor, frame: Size, view: DetectionView) -> tuple[Tensor, Tensor]:
    """Boxes of the decoded frames to those of the view.

    Args:
        boxes: float [N, 4], see :mod:`~videomae_fast.data.boxes.geometry`.
        frame: (height, width) of the decoded frames.
        view: what is made of them.

    Returns:
        float [M, 4], and which boxes they are, bool [N]: labels belong to boxes.
    """
    found = resized(boxes, frame, view.size)
    width = view.size[1]
    kept = torch.ones(len(boxes), dtype=torch.bool, device=boxes.device)
    if view.crop is not None:
        top, left, side = view.crop
        width = side
        found = found - found.new_tensor([left, top, left, top])
        if view.boxes == "official":
            found = found.clamp(0, side)
        else:
            found = clipped(found, (side, side))
            kept = (found[:, 2:] > found[:, :2]).all(1)
            found = found[kept]
    return (flipped(found, width) if view.flip else found), kept
