"""What models make of pixel values."""

from __future__ import annotations

from dataclasses import dataclass

from videomae_fast.ops.patch_gather import IMAGENET_MEAN, IMAGENET_STD

Channels = tuple[float, float, float]


@dataclass(frozen=True)
class Pixels:
    """How uint8 frames are normalised: ``(uint8 / 255 - mean) / std``, per colour channel.

    Attributes:
        mean, std: of values in 0..1, in the order red, green, blue.

    Raises:
        ValueError: a deviation that is not above 0.
    """

    mean: Channels = IMAGENET_MEAN
    std: Channels = IMAGENET_STD

    def __post_init__(self) -> None:
        if len(self.mean) != 3 or len(self.std) != 3 or not min(self.std) > 0:
            raise ValueError(
                f"pixels need 3 means and 3 deviations above 0, got {self.mean}, {self.std}"
            )


IMAGENET = Pixels()
"""Pre-training, fine-tuning and testing."""
UNIT = Pixels((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
"""Values in 0..1 as they are: the released features for temporal detection."""
SLOWFAST = Pixels(
    (122.7717 / 255, 115.9465 / 255, 102.9801 / 255), (57.375 / 255, 57.375 / 255, 57.375 / 255)
)
"""The official code for AVA."""
