"""How the official code makes training clips for fine-tuning: decord, PIL and fp32, transcribed.

A video is opened and its frames are decoded once. Each of the samples makes PIL images of all of
them, runs RandAugment image by image, makes fp32 tensors of whole frames, normalises these, and
only then cuts out the crop and resizes it with ``F.interpolate``; it is flipped, and a rectangle of
it is filled with noise, frame by frame. What was drawn is given, so that both sides do the same.

Source: VideoClsDataset in dataset/datasets.py, dataset/rand_augment.py, video_transforms.py and
random_erasing.py of the official V2 code.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image, ImageEnhance, ImageOps
from torch import Tensor

from benchmarks.official.reading import MEAN, STD
from videomae_fast.data.augment.policy import Augmentation
from videomae_fast.data.order import below
from videomae_fast.data.reading import ClipRequest

Picture = Image.Image
FILL: Final = (128, 128, 128)


@dataclass(frozen=True)
class OfficialClips:
    """One video as the official data set gives it to fine-tuning.

    Attributes:
        clips: of each sample, fp32 [3, T, h, w], normalised.
        ids: frame numbers.
        decode_seconds: until the frames are an array.
        view_seconds: all that comes after.
    """

    clips: list[Tensor]
    ids: tuple[int, ...]
    decode_seconds: float
    view_seconds: float


Drawn = Callable[[tuple[int, int]], Sequence[Augmentation]]
"""What is done to each sample of frames of a (height, width)."""


def read_augmented(request: ClipRequest, frames: int, side: int, drawn: Drawn) -> OfficialClips:
    """Reads a request as the official data set does, one thread."""
    import decord

    begin = time.perf_counter()
    video = decord.VideoReader(str(request.file), num_threads=1, ctx=decord.cpu(0))
    ids = dense_numbers(len(video), frames, request.stride, request.words[0])
    decoded = video.get_batch(ids).asnumpy()
    there = time.perf_counter()
    clips = [augment(decoded, plan, side) for plan in drawn(decoded.shape[1:3])]
    return OfficialClips(clips, tuple(ids), there - begin, time.perf_counter() - there)


def dense_numbers(duration: int, frames: int, stride: int, word: int) -> list[int]:
    """The frames of a training clip, counted from 0; its end is drawn by ``word``."""
    span = frames * stride
    if duration > span:
        end = span + below(word, duration - span)
        places = np.clip(np.linspace(end - span, end, frames), end - span, end - 1)
    else:
        few = duration // stride
        rest = np.full(frames - few, float(duration))
        places = np.clip(np.concatenate([np.linspace(0, duration, few), rest]), 0, duration - 1)
    return [int(place) for place in places]


def augment(frames: NDArray[np.uint8], plan: Augmentation, side: int) -> Tensor:
    """Frames uint8 [T, H, W, 3] to a clip, fp32 [3, T, side, side]."""
    pictures = [Image.fromarray(frame).convert("RGB") for frame in frames]
    for operation in plan.operations:
        change = OPERATIONS[operation.name]
        pictures = [change(picture, operation.argument) for picture in pictures]
    tensors = [_to_tensor(picture) for picture in pictures]
    values = torch.stack(tensors).permute(0, 2, 3, 1)
    values = (values - torch.tensor(MEAN)) / torch.tensor(STD)
    planes = values.permute(3, 0, 1, 2)
    top, left, height, width = plan.crop
    cropped = planes[:, :, top : top + height, left : left + width]
    clip = F.interpolate(cropped, size=(side, side), mode="bilinear", align_corners=False)
    if plan.flip:
        clip = clip.flip(-1)
    if plan.hole is not None:
        top, left, height, width = plan.hole
        for number in range(clip.shape[1]):
            noise = torch.empty((3, height, width)).normal_()
            clip[:, number, top : top + height, left : left + width] = noise
    return clip


def _to_tensor(picture: Picture) -> Tensor:
    """As torchvision's ToTensor: fp32 [3, H, W] in 0..1."""
    pixels = torch.from_numpy(np.array(picture, np.uint8, copy=True))
    return pixels.permute(2, 0, 1).contiguous().to(torch.float32).div(255)


def _affine(picture: Picture, matrix: Sequence[float]) -> Picture:
    return picture.transform(
        picture.size,
        Image.Transform.AFFINE,
        tuple(matrix),
        resample=Image.Resampling.BICUBIC,
        fillcolor=FILL,
    )


def _rotate(picture: Picture, degrees: float) -> Picture:
    return picture.rotate(degrees, resample=Image.Resampling.BICUBIC, fillcolor=FILL)


def _solarize_add(picture: Picture, more: float) -> Picture:
    table = [min(255, level + int(more)) if level < 128 else level for level in range(256)]
    return picture.point(table + table + table)


OPERATIONS: Final[dict[str, Callable[[Picture, Any], Picture]]] = {
    "auto_contrast": lambda p, _: ImageOps.autocontrast(p),
    "equalize": lambda p, _: ImageOps.equalize(p),
    "invert": lambda p, _: ImageOps.invert(p),
    "rotate": _rotate,
    "posterize": lambda p, bits: ImageOps.posterize(p, int(bits)),
    "solarize": lambda p, threshold: ImageOps.solarize(p, int(threshold)),
    "solarize_add": _solarize_add,
    "color": lambda p, factor: ImageEnhance.Color(p).enhance(factor),
    "contrast": lambda p, factor: ImageEnhance.Contrast(p).enhance(factor),
    "brightness": lambda p, factor: ImageEnhance.Brightness(p).enhance(factor),
    "sharpness": lambda p, factor: ImageEnhance.Sharpness(p).enhance(factor),
    "shear_x": lambda p, slope: _affine(p, (1, slope, 0, 0, 1, 0)),
    "shear_y": lambda p, slope: _affine(p, (1, 0, 0, slope, 1, 0)),
    "translate_x": lambda p, share: _affine(p, (1, 0, share * p.size[0], 0, 1, 0)),
    "translate_y": lambda p, share: _affine(p, (1, 0, 0, 0, 1, share * p.size[1])),
}
