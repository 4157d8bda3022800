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
    b_frames: B-frames from one reference frame to the next, 0 to 16. No frame refers to them, so a
        reader leaves out those that it doesn't want: at stride 4 and with 3, half of all frames.
    crf: x264's quality, 0 (lossless) to 51; lower is better, larger and slower to read.
    preset: x264's effort.

    Raises ``ValueError`` for a setting that can't be.
    """

    short_side: int = 256
    gop: int = 16
    b_frames: int = 3
    crf: int = 22
    preset: str = "medium"

    def __post_init__(self) -> None:
        if self.short_side < 16 or self.short_side % 2:
            raise ValueError(f"short side {self.short_side} must be even and at least 16 pixels")
        if self.gop < 1:
            raise ValueError(f"gop {self.gop} must be at least 1 frame")
        if not 0 <= self.b_frames <= 16:
            raise ValueError(f"b frames {self.b_frames} must be between 0 and 16")
        if not 0 <= self.crf <= 51:
            raise ValueError(f"crf {self.crf} must be between 0 and 51")
        if self.preset not in PRESETS:
            raise ValueError(f"preset {self.preset!r} is not one of {', '.join(PRESETS)}")

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def encoder_options(self) -> dict[str, str]:
        """The options of libx264.

        fastdecode leaves out CABAC, the deblocking filter and weighted prediction, which cost
        the reader most. B-frames come in a fixed pattern, and none is referred to.
        """
        return {
            "preset": self.preset,
            "crf": str(self.crf),
            "tune": "fastdecode",
            "g": str(self.gop),
            "keyint_min": str(self.gop),
            "sc_threshold": "0",
            "flags": "+cgop",
            "bf": str(self.b_frames),
            "b-pyramid": "none",
            "b_strategy": "0",
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
