"""What fine-tuning draws for a clip: operations on its colours and shape, a crop, a flip, a hole.

Every draw is made once and holds for all frames of the clip. The operations and their order are the
official ones, ``rand-m7-n4-mstd0.5-inc1``; what they do to pixels is elsewhere.

Source: dataset/rand_augment.py, video_transforms.py and random_erasing.py of the official V2 code.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from videomae_fast.data.randomness import Randomness

Size = tuple[int, int]
"""Height and width in pixels."""
Rectangle = tuple[int, int, int, int]
"""Top, left, height, width in pixels."""

_MOST: Final = 10.0  # the largest magnitude


def _signed(rng: Randomness, value: float) -> float:
    return value if rng.chance(0.5) else -value


def _nothing(_: Randomness, __: float) -> float | None:
    return None


def _enhance(rng: Randomness, magnitude: float) -> float:
    return 1.0 + _signed(rng, magnitude / _MOST * 0.9)


def _shear(rng: Randomness, magnitude: float) -> float:
    return _signed(rng, magnitude / _MOST * 0.3)


def _translate(rng: Randomness, magnitude: float) -> float:
    return _signed(rng, magnitude / _MOST * 0.45)


OPERATIONS: Final[dict[str, Callable[[Randomness, float], float | None]]] = {
    "auto_contrast": _nothing,
    "equalize": _nothing,
    "invert": _nothing,
    "rotate": lambda rng, m: _signed(rng, m / _MOST * 30.0),
    "posterize": lambda _, m: 4 - int(m / _MOST * 4),
    "solarize": lambda _, m: 256 - int(m / _MOST * 256),
    "solarize_add": lambda _, m: int(m / _MOST * 110),
    "color": _enhance,
    "contrast": _enhance,
    "brightness": _enhance,
    "sharpness": _enhance,
    "shear_x": _shear,
    "shear_y": _shear,
    "translate_x": _translate,
    "translate_y": _translate,
}
"""The argument of each operation by magnitude, 0 to 10, None where it has none: degrees (rotate),
bits that are kept (posterize), a threshold or what is added (solarize), a factor (colour, contrast,
brightness, sharpness), a slope (shear), or a share of the width or height (translate)."""


@dataclass(frozen=True)
class Operation:
    """One operation of RandAugment: its name in `OPERATIONS`, and its argument."""

    name: str
    argument: float | None


@dataclass(frozen=True)
class AugmentSettings:
    """How clips of a training batch are changed; the defaults are the official recipes'.

    Attributes:
        operations: of RandAugment, drawn for each clip; 0 leaves it out.
        magnitude, deviation: of the normal distribution that an operation's magnitude comes from,
            cut to 0..10.
        applied: probability that a drawn operation is done.
        area: smallest and largest share of the frame that a crop takes.
        aspect: smallest and largest width / height of a crop.
        flip: probability of a flip from left to right: 0 for Something-Something.
        erase: probability of a hole filled with noise.
        erase_area, erase_aspect: bounds of the hole's share of the crop, and of its height / width.

    Raises:
        ValueError: a value that can't be.
    """

    operations: int = 4
    magnitude: float = 7.0
    deviation: float = 0.5
    applied: float = 0.5
    area: tuple[float, float] = (0.08, 1.0)
    aspect: tuple[float, float] = (0.75, 1.3333)
    flip: float = 0.5
    erase: float = 0.25
    erase_area: tuple[float, float] = (0.02, 1 / 3)
    erase_aspect: tuple[float, float] = (0.3, 1 / 0.3)

    def __post_init__(self) -> None:
        if self.operations < 0 or not 0 <= self.magnitude <= _MOST or self.deviation < 0:
            raise ValueError(
                f"operations ({self.operations}) and deviation ({self.deviation}) must be at least "
                f"0, magnitude ({self.magnitude}) between 0 and 10"
            )
        for name in ("applied", "flip", "erase"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} ({getattr(self, name)}) must be between 0 and 1")
        for name in ("area", "aspect", "erase_area", "erase_aspect"):
            low, high = getattr(self, name)
            if not 0 < low <= high or ("area" in name and high > 1):
                raise ValueError(f"{name} ({low}, {high}) must rise, from above 0, to 1 for areas")


@dataclass(frozen=True)
class Augmentation:
    """What was drawn for a clip.

    Attributes:
        operations: to be done on the decoded frames, in this order.
        crop: of the decoded frames, resized to the clip's size.
        flip: from left to right, after the crop.
        hole: in the resized clip, or None.
        noise: seed of what fills the hole.
    """

    operations: tuple[Operation, ...]
    crop: Rectangle
    flip: bool
    hole: Rectangle | None
    noise: int


def draw_augmentation(
    settings: AugmentSettings, frame: Size, size: Size, rng: Randomness
) -> Augmentation:
    """Draws what is done to one clip.

    Args:
        settings: how much of it.
        frame: (height, width) of the decoded frames.
        size: (height, width) of the clip.
        rng: what the draws come from.
    """
    return Augmentation(
        operations=_draw_operations(settings, rng),
        crop=_draw_crop(settings, frame, rng),
        flip=rng.chance(settings.flip),
        hole=_draw_hole(settings, size, rng) if rng.chance(settings.erase) else None,
        noise=rng.word(),
    )


def _draw_operations(settings: AugmentSettings, rng: Randomness) -> tuple[Operation, ...]:
    names = list(OPERATIONS)
    drawn = [names[rng.below(len(names))] for _ in range(settings.operations)]
    done = []
    for name in drawn:
        if rng.chance(settings.applied):
            magnitude = rng.normal(settings.magnitude, settings.deviation)
            magnitude = min(max(magnitude, 0.0), _MOST)
            done.append(Operation(name, OPERATIONS[name](rng, magnitude)))
    return tuple(done)


def _draw_crop(settings: AugmentSettings, frame: Size, rng: Randomness) -> Rectangle:
    """An area and an aspect that fit the frame; after 10 tries the middle of the frame."""
    height, width = frame
    slimmest, widest = settings.aspect
    for _ in range(10):
        area = rng.uniform(*settings.area) * height * width
        aspect = math.exp(rng.uniform(math.log(slimmest), math.log(widest)))
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            return rng.below(height - h + 1), rng.below(width - w + 1), h, w
    if width / height < slimmest:
        w, h = width, min(height, max(1, round(width / slimmest)))
    elif width / height > widest:
        w, h = min(width, max(1, round(height * widest))), height
    else:
        w, h = width, height
    return (height - h) // 2, (width - w) // 2, h, w


def _draw_hole(settings: AugmentSettings, size: Size, rng: Randomness) -> Rectangle | None:
    """A rectangle that is smaller than the clip; none after 100 tries."""
    height, width = size
    low, high = (math.log(bound) for bound in settings.erase_aspect)
    for _ in range(100):
        area = rng.uniform(*settings.erase_area) * height * width
        aspect = math.exp(rng.uniform(low, high))
        h, w = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < h < height and 0 < w < width:
            return rng.below(height - h + 1), rng.below(width - w + 1), h, w
    return None
