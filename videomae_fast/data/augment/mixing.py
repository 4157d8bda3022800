"""Mixup and cutmix: clips of a batch, and their labels, mixed with one another.

Clip i is mixed with clip B - 1 - i. Mixup blends the two; cutmix puts a box of the second, the same
in all frames, into the first. The official recipes draw once for the whole batch.

Source: Mixup in timm/data/mixup.py (0.4.12), which the official V2 code calls.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from videomae_fast import ops
from videomae_fast.data.randomness import Randomness

Mode = Literal["batch", "pair", "elem"]
Box = tuple[int, int, int, int]
"""Rows and columns (top, bottom, left, right), the second and fourth not included."""


@dataclass(frozen=True)
class MixSettings:
    """How batches are mixed.

    Attributes:
        mixup, cutmix: alpha of the Beta distribution that the share is drawn from; 0 leaves the
            one out, and both 0 means no mixing.
        probability: that a draw mixes at all.
        switch: probability of cutmix where both are on.
        mode: one draw for the whole batch, for each pair of clips, or for each clip.
        smoothing: share of the target that is spread over all classes.

    Raises:
        ValueError: a value that can't be.
    """

    mixup: float = 0.8
    cutmix: float = 1.0
    probability: float = 1.0
    switch: float = 0.5
    mode: Mode = "batch"
    smoothing: float = 0.1

    def __post_init__(self) -> None:
        for name in ("mixup", "cutmix"):
            if not 0 <= getattr(self, name) <= 8:
                raise ValueError(f"{name} ({getattr(self, name)}) must be between 0 and 8")
        for name in ("probability", "switch"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} ({getattr(self, name)}) must be between 0 and 1")
        if not 0 <= self.smoothing < 1:
            raise ValueError(f"smoothing ({self.smoothing}) must be at least 0 and below 1")
        if self.mode not in ("batch", "pair", "elem"):
            raise ValueError(f"mode {self.mode!r} must be batch, pair or elem")

    @property
    def active(self) -> bool:
        return self.mixup > 0 or self.cutmix > 0


@dataclass(frozen=True)
class Mix:
    """What was drawn for a batch of B clips.

    Attributes:
        own: share of each clip's own pixels and label, B values in [0, 1]; where there is a box,
            what the box leaves of the frame.
        boxes: of each clip, or None for mixup.
    """

    own: tuple[float, ...]
    boxes: tuple[Box | None, ...]

    @staticmethod
    def none(batch: int) -> Mix:
        """Every clip as it is."""
        return Mix((1.0,) * batch, (None,) * batch)

    def tensors(self) -> MixTensors:
        """The same as tensors on the CPU, of shapes that depend on B alone."""
        boxes = [(0, 0, 0, 0) if box is None else box for box in self.boxes]
        return MixTensors(
            torch.tensor(self.own, dtype=torch.float64), torch.tensor(boxes, dtype=torch.int64)
        )


@dataclass(frozen=True)
class MixTensors:
    """A :class:`Mix` on a device. Nothing of it is read by the host, so a step can be recorded.

    Attributes:
        own: float64 [B], share of each clip's own label.
        boxes: int64 [B, 4], an empty box for a clip that is blended.
    """

    own: Tensor
    boxes: Tensor

    def between(self, ok: Tensor) -> MixTensors:
        """The same for clips of which some could not be read; their partners stay as they are.

        Args:
            ok: bool [B], False for a clip that could not be read.
        """
        both = ok & ok.flip(0)
        return MixTensors(
            torch.where(both, self.own, 1.0), torch.where(both[:, None], self.boxes, 0)
        )


def draw_mix(settings: MixSettings, batch: int, size: tuple[int, int], rng: Randomness) -> Mix:
    """Draws how the clips of a batch are mixed.

    Args:
        settings: how.
        batch: number of clips; it must be even, or the middle clip would be mixed with itself.
        size: (height, width) of the clips in pixels.
        rng: what the draws come from.

    Raises:
        ValueError: an odd number of clips.
    """
    if not settings.active:
        return Mix.none(batch)
    if batch % 2:
        raise ValueError(
            f"{batch} clips can't be mixed in pairs: make videos per process and micro-batch times "
            "samples per video even, or set mixup and cutmix to 0"
        )
    if settings.mode == "elem":
        drawn = [_draw_one(settings, size, rng) for _ in range(batch)]
    elif settings.mode == "pair":
        half = [_draw_one(settings, size, rng) for _ in range(batch // 2)]
        drawn = [*half, *reversed(half)]
    else:
        drawn = [_draw_one(settings, size, rng)] * batch
    return Mix(tuple(own for own, _ in drawn), tuple(box for _, box in drawn))


def _draw_one(
    settings: MixSettings, size: tuple[int, int], rng: Randomness
) -> tuple[float, Box | None]:
    if not rng.chance(settings.probability):
        return 1.0, None
    both = settings.mixup > 0 and settings.cutmix > 0
    cut = rng.chance(settings.switch) if both else settings.cutmix > 0
    alpha = settings.cutmix if cut else settings.mixup
    own = rng.beta(alpha)
    if not cut:
        return own, None
    centre = rng.below(size[0]), rng.below(size[1])
    box = cut_box(own, size, centre)
    return share_left(box, size), box


def cut_box(own: float, size: tuple[int, int], centre: tuple[int, int]) -> Box:
    """The box that leaves about `own` of a frame, cut off at the frame's edges.

    Args:
        own: share of the frame that is left where nothing is cut off.
        size: (height, width) of the frame in pixels.
        centre: (row, column) of the box.
    """
    ratio = math.sqrt(1.0 - own)
    top_bottom = _around(int(size[0] * ratio), centre[0], size[0])
    return *top_bottom, *_around(int(size[1] * ratio), centre[1], size[1])


def _around(length: int, centre: int, limit: int) -> tuple[int, int]:
    return max(0, centre - length // 2), min(limit, centre + length // 2)


def share_left(box: Box, size: tuple[int, int]) -> float:
    """Share of a frame of this (height, width) that lies outside the box."""
    top, bottom, left, right = box
    return 1.0 - (bottom - top) * (right - left) / (size[0] * size[1])


def mix_clips(clips: Tensor, mix: Mix | MixTensors) -> Tensor:
    """The mixed clips, a new tensor.

    Args:
        clips: float [B, T, H, W, 3].
        mix: for B clips, on their device where it is one of tensors.

    Raises:
        ValueError: another number of clips, or clips that aren't floating point.
    """
    if len(clips) != len(mix.own):
        raise ValueError(f"clips must be [{len(mix.own)}, T, H, W, 3], got {list(clips.shape)}")
    if not clips.is_floating_point():
        raise ValueError(f"clips must be floating point, not {clips.dtype}: normalise them first")
    own, boxes = _on(clips.device, mix)
    return ops.mix_clips(clips, own, boxes)


def mix_targets(labels: Tensor, classes: int, mix: Mix | MixTensors, smoothing: float) -> Tensor:
    """Targets fp32 [B, classes] that go with :func:`mix_clips`.

    Args:
        labels: int64 [B].
        classes: number of classes.
        mix: for B clips, on the labels' device where it is one of tensors.
        smoothing: share that is spread evenly over all classes, 0 to below 1.

    Raises:
        ValueError: another number of labels.
    """
    if labels.shape != (len(mix.own),):
        raise ValueError(f"labels must be [{len(mix.own)}], got {list(labels.shape)}")
    off = smoothing / classes
    target = torch.full((len(labels), classes), off, dtype=torch.float32, device=labels.device)
    target.scatter_(1, labels[:, None], 1.0 - smoothing + off)
    own, _ = _on(labels.device, mix)
    share, rest = own.float()[:, None], (1.0 - own).float()[:, None]
    return target * share + target.flip(0) * rest


def _on(device: torch.device, mix: Mix | MixTensors) -> tuple[Tensor, Tensor]:
    """Shares and boxes; those of a Mix are copied to the device."""
    tensors = mix.tensors() if isinstance(mix, Mix) else mix
    return tensors.own.to(device), tensors.boxes.to(device)
