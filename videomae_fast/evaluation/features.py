"""Features of a video's windows: decoded once and ahead of the model, resized once, batched."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from itertools import islice
from typing import Final, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from videomae_fast.data.decoders import VideoReader
from videomae_fast.data.decoders.in_order import read_in_order
from videomae_fast.data.decoders.running_ahead import running_ahead
from videomae_fast.data.errors import DecodeError, one_file
from videomae_fast.data.loader.turns import ShortTurns
from videomae_fast.data.views.evaluation import Evaluation, View
from videomae_fast.data.views.evaluation_crops import centre_corner, short_side_resized
from videomae_fast.data.views.rule import ClipShape
from videomae_fast.data.views.squashed import squashed
from videomae_fast.evaluation.windows import PRESETS, WindowRule, sliding
from videomae_fast.models.frozen import FrozenFeatures
from videomae_fast.models.pixels import IMAGENET, UNIT, Pixels

Fit = Literal["squash", "crop"]
_CHUNK: Final = 16  # frames decoded, handed over and resized at once


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


def usual_batch(device: torch.device | str) -> int:
    """Windows per forward pass, unless asked for: 8, on a CPU 1, whose cache then holds the MLP's
    hidden values."""
    return 1 if torch.device(device).type == "cpu" else 8


def clip_features(
    model: FrozenFeatures,
    video: VideoReader,
    settings: FeatureSettings,
    *,
    batch: int | None = None,
    device: torch.device | str = "cpu",
    bf16: bool = False,
) -> Generator[NDArray[np.float32]]:
    """Features of the windows of an open video, in order.

    Each frame is decoded, moved and resized once; a thread decodes while the model computes.
    Memory holds 48 frames, those of one window and the clips of one batch, however long the
    video is. The video is in use until the generator has ended or is closed.

    Args:
        model: on the device.
        video: open.
        settings: windows and pixels.
        batch: windows per forward pass; None: :func:`usual_batch`.
        device: of the model.
        bf16: compute in bf16 under autocast; results are float32 all the same.

    Yields:
        float32 [windows of a batch, ...] as the model's pooling says.

    Raises:
        DecodeError: a frame can't be decoded, or the video is too short and not to be padded.
        ValueError: a batch below 1, or a clip that the model does not take.
    """
    device = torch.device(device)
    batch = usual_batch(device) if batch is None else batch
    if batch < 1:
        raise ValueError(f"batch must be at least 1, not {batch}")
    rule, count = settings.windows, video.frame_count
    model.shape(rule.length, settings.size)
    if not rule.count(count):
        raise DecodeError(f"has {count} frames, and a window spans {rule.span}")
    with ShortTurns(), closing(running_ahead(_decoded(video, rule.needed(count)))) as chunks:
        windows = sliding(_prepared(chunks, settings, device), rule, count)
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
    batch: int | None = None,
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


def _decoded(video: VideoReader, numbers: Iterator[int]) -> Iterator[NDArray[np.uint8]]:
    """uint8 [some, H, W, 3] of the frames with these numbers."""
    frames = read_in_order(video, numbers)
    while True:
        with one_file():
            some = list(islice(frames, _CHUNK))
        if not some:
            return
        if len({frame.shape for frame in some}) > 1:
            raise DecodeError("its frames have different sizes")
        yield np.stack(some)


def _prepared(
    chunks: Iterator[NDArray[np.uint8]], settings: FeatureSettings, device: torch.device
) -> Iterator[Tensor]:
    """fp32 [height, width, 3], normalised, of each frame of the chunks."""
    mean, std = settings.pixels.mean, settings.pixels.std
    for some in chunks:
        raw = torch.from_numpy(some).to(device)
        if settings.fit == "squash":
            yield from squashed(raw, settings.size, mean, std)
        else:
            offset, scale = torch.tensor([mean, std], device=device)
            yield from (_cropped(raw, settings.size) - offset) / scale


def _cropped(frames: Tensor, size: tuple[int, int]) -> Tensor:
    """uint8 [N, H, W, 3] to fp32 [N, height, width, 3] in 0..1: validation's crop, whose values
    are whole grey levels."""
    side = size[0]
    resized = short_side_resized((frames.shape[1], frames.shape[2]), side)
    view = View(tuple(range(len(frames))), centre_corner(resized, side))
    shape = ClipShape(1, len(frames), size)
    return Evaluation().make_on_device([frames], [(view,)], shape)[0].float() / 255
