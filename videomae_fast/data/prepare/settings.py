"""How files are written for training, and why so."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Final

PRESETS: Final = (
    "ultrafast",
    "superfast",
    "veryfast",
    "faster",
    "fast",
    "medium",
    "slow",
    "slower",
    "veryslow",
)


@dataclass(frozen=True)
class PrepareSettings:
    """Settings of the transcoded files: H.264 (libx264), 4:2:0, 8 bits, no sound, in MP4.

    short_side: pixels (even); videos that are smaller keep their size. The official data sets
        have 256 or 320, and a training crop of 224 takes at most the short side.
    gop: frames from one key frame to the next; groups are closed. A clip of 16 frames at stride 4
        begins anywhere, so half a group is decoded in vain; shorter groups make larger files.
    crf: x264's quality, 0 (lossless) to 51; lower is better, larger and slower to read.
    preset: x264's effort. Slower ones gain little here, since fastdecode and short groups leave
        them little to do.

    Raises ``ValueError`` for a setting that can't be.
    """

    short_side: int = 256
    gop: int = 16
    crf: int = 20
    preset: str = "veryfast"

    def __post_init__(self) -> None:
        if self.short_side < 16 or self.short_side % 2:
            raise ValueError(f"short side {self.short_side} must be even and at least 16 pixels")
        if self.gop < 1:
            raise ValueError(f"gop {self.gop} must be at least 1 frame")
        if not 0 <= self.crf <= 51:
            raise ValueError(f"crf {self.crf} must be between 0 and 51")
        if self.preset not in PRESETS:
            raise ValueError(f"preset {self.preset!r} is not one of {', '.join(PRESETS)}")

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def encoder_options(self) -> dict[str, str]:
        """The options of libx264.

        fastdecode leaves out CABAC, the deblocking filter and weighted prediction, which cost
        the reader most. Without B-frames, frames are stored in the order in which they are
        shown: no container needs an edit list, and every decoder counts alike.
        """
        return {
            "preset": self.preset,
            "crf": str(self.crf),
            "tune": "fastdecode",
            "g": str(self.gop),
            "keyint_min": str(self.gop),
            "sc_threshold": "0",
            "flags": "+cgop",
            "bf": "0",
        }

    def target_size(self, width: int, height: int) -> tuple[int, int]:
        """Width and height to scale to: the aspect is kept to the nearest even long side.

        A video that is not larger than ``short_side`` keeps its size, an odd one included.
        """
        short = min(width, height)
        if short <= self.short_side:
            return width, height
        long = 2 * round(max(width, height) * self.short_side / short / 2)
        return (self.short_side, long) if width <= height else (long, self.short_side)
