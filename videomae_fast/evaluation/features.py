"""Features of a video's windows: decoded once, resized once, batched."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Final, Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from videomae_fast.data.decoders import VideoReader
from videomae_fast.data.decoders.in_order import read_in_order
from videomae_fast.data.errors import DecodeError, one_file
from videomae_fast.data.views.evaluation import Evaluation, View
from videomae_fast.data.views.evaluation_crops import centre_corner, short_side_resized
from videomae_fast.data.views.rule import ClipShape
from videomae_fast.evaluation.windows import PRESETS, WindowRule, sliding
from videomae_fast.models.frozen import FrozenFeatures
from videomae_fast.models.pixels import IMAGENET, UNIT, Pixels

Fit = Literal["squash", "crop"]
_CHUNK: Final = 16  # frames resized at once


@dataclass(frozen=True)
class FeatureSettings:
    """How a video becomes the clips of its windows.

    Attributes:
        windows: which frames they have.
        size: (height, width) of the clips in pixels.
        fit: "squash" resizes frames to the size whatever their aspect (bilinear, without
            antialiasing, not rounded), "crop" takes the square in the middle as validation does.
        pixels: normalisation of values in 0..1.

    Raises:
        ValueError: an unknown word, a size below 1, or a crop that is no square.
    """

    windows: WindowRule = field(default_factory=WindowRule)
    size: tuple[int, int] = (224, 224)
    fit: Fit = "crop"
    pixels: Pixels = IMAGENET

    def __post_init__(self) -> None:
        if self.fit not in ("squash", "crop"):
            raise ValueError(f"fit is {self.fit!r}: squash or crop")
        if min(self.size) < 1:
            raise ValueError(f"a size of {self.size}: both sides must be at least 1")
        if self.fit == "crop" and self.size[0] != self.size[1]:
            raise ValueError(f"crops are square, not {self.size[0]} x {self.size[1]}: use squash")


def preset(name: str) -> FeatureSettings:
    """The released features for temporal detection.

    Args:
        name: "thumos14" (a window every 4 frames) or "fineaction" (every 16).

    Returns:
        Windows of 16 consecutive frames, ``uint8 / 255`` without mean and deviation, squashed to
        224 x 224. A video shorter than a window, on which the official script fails, gives one
        padded window.

    Raises:
        ValueError: no such name.

    Source: extract_tad_feature.py of the official V2 code.
    """
    if name not in PRESETS:
        raise ValueError(f"preset {name!r} is not one of {', '.join(PRESETS)}")
    return FeatureSettings(PRESETS[name], (224, 224), "squash", UNIT)


def clip_features(
    model: FrozenFeatures,
    video: VideoReader,
    settings: FeatureSettings,
    *,
    batch: int = 8,
    device: torch.device | str = "cpu",
    bf16: bool = False,
) -> Iterator[NDArray[np.float32]]:
    """Features of the windows of an open video, in order.

    Each frame is decoded, moved and resized once. Memory holds the frames of one window and the
    clips of one batch, however long the video is.

    Args:
        model: on the device.
        video: open.
        settings: windows and pixels.
        batch: windows per forward pass.
        device: of the model.
        bf16: compute in bf16 under autocast; results are float32 all the same.

    Yields:
        float32 [windows of a batch, ...] as the model's pooling says.

    Raises:
        DecodeError: a frame can't be decoded, or the video is too short and not to be padded.
        ValueError: a batch below 1, or a clip that the model does not take.
    """
    if batch < 1:
        raise ValueError(f"batch must be at least 1, not {batch}")
    rule, count = settings.windows, video.frame_count
    model.shape(rule.length, settings.size)
    if not rule.count(count):
        raise DecodeError(f"has {count} frames, and a window spans {rule.span}")
    device = torch.device(device)
    windows = sliding(_prepared(video, settings, device), rule, count)
    while some := list(islice(windows, batch)):
        clips = torch.stack([torch.stack(frames) for frames in some])
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            features = model(clips)
        found: NDArray[np.float32] = features.cpu().numpy()
        yield found


def video_features(
    model: FrozenFeatures,
    video: VideoReader,
    settings: FeatureSettings,
    *,
    batch: int = 8,
    device: torch.device | str = "cpu",
    bf16: bool = False,
) -> NDArray[np.float32]:
    """All that :func:`clip_features` gives of a video, as one array.

    Args:
        model, video, settings, batch, device, bf16: as there.

    Returns:
        float32 [windows, ...].

    Raises:
        DecodeError, ValueError: as there.
    """
    parts = clip_features(model, video, settings, batch=batch, device=device, bf16=bf16)
    return np.concatenate(list(parts))


def _prepared(
    video: VideoReader, settings: FeatureSettings, device: torch.device
) -> Iterator[Tensor]:
    """fp32 [height, width, 3], normalised, of each frame that a window has."""
    frames = read_in_order(video, settings.windows.needed(video.frame_count))
    mean = torch.tensor(settings.pixels.mean, device=device)
    std = torch.tensor(settings.pixels.std, device=device)
    while True:
        with one_file():
            some = list(islice(frames, _CHUNK))
        if not some:
            return
        if len({frame.shape for frame in some}) > 1:
            raise DecodeError("its frames have different sizes")
        raw = torch.from_numpy(np.stack(some)).to(device)
        small = (
            _squashed(raw, settings.size)
            if settings.fit == "squash"
            else _cropped(raw, settings.size)
        )
        yield from (small - mean) / std


def _squashed(frames: Tensor, size: tuple[int, int]) -> Tensor:
    """uint8 [N, H, W, 3] to fp32 [N, height, width, 3] in 0..1."""
    values = frames.permute(0, 3, 1, 2).contiguous().float() / 255
    small = F.interpolate(values, size, mode="bilinear", align_corners=False)
    return small.permute(0, 2, 3, 1).contiguous()


def _cropped(frames: Tensor, size: tuple[int, int]) -> Tensor:
    """As :func:`_squashed`: validation's crop, whose values are whole grey levels."""
    side = size[0]
    resized = short_side_resized((frames.shape[1], frames.shape[2]), side)
    view = View(tuple(range(len(frames))), centre_corner(resized, side))
    shape = ClipShape(1, len(frames), size)
    return Evaluation().make_on_device([frames], [(view,)], shape)[0].float() / 255
