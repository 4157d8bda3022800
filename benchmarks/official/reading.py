"""How the official code reads a video for pre-training: decord, PIL and fp32, transcribed.

A video is opened and its 16 frames are decoded once; they become PIL images. Each of the 4 samples
(repeated augmentation) crops and resizes all of them anew, puts them side by side into one array,
makes fp32 planes of that, divides and normalises them channel by channel, and draws its two masks
with numpy. Words of a request take the place of the official random numbers, so that both sides
read the same frames and crops; frame numbers and boxes are computed here, not taken from the
library.

Source: dataset/pretrain_datasets.py, dataset/transforms.py, dataset/loader.py,
dataset/masking_generator.py of the official V2 code.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from einops import rearrange
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from benchmarks.official.masks import CELL, running_cell_maps, tube_mask
from videomae_fast.data.order import below
from videomae_fast.data.reading import ClipRequest, ReadSettings
from videomae_fast.data.views.rule import WORDS_PER_SAMPLE
from videomae_fast.masks import Grid

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SCALES = (1.0, 0.875, 0.75, 0.66)
TUBELET, PATCH = 2, 16
ENCODER_RATIO, DECODER_RATIO = 0.9, 0.5

Sample = tuple[Tensor, NDArray[Any], NDArray[Any]]
BoxOf = tuple[int, int, int, int]


@dataclass(frozen=True)
class OfficialSamples:
    """One video as the official data set gives it.

    Attributes:
        samples: of each the clip, fp32 [3, T, h, w], and its encoder and decoder mask.
        ids: frame numbers.
        boxes: (x, y, width, height) of each sample.
        decode_seconds: until the frames are an array.
        view_seconds: all that comes after.
    """

    samples: list[Sample]
    ids: tuple[int, ...]
    boxes: tuple[BoxOf, ...]
    decode_seconds: float
    view_seconds: float

    def pixels(self) -> NDArray[np.uint8]:
        """uint8 [S, T, h, w, 3]: the pixels before normalisation, to the nearest grey level."""
        planes = torch.stack([sample[0] for sample in self.samples])
        mean, std = (torch.tensor(values).view(1, 3, 1, 1, 1) for values in (MEAN, STD))
        grey = ((planes * std + mean) * 255).round().clamp(0, 255).to(torch.uint8)
        found: NDArray[np.uint8] = rearrange(grey, "s c t h w -> s t h w c").numpy()
        return found


class OfficialReader:
    """Reads requests of videos as the official data set does, one thread.

    Raises ``ValueError`` for clips that are not square, which the official recipe does not have.
    """

    def __init__(self, reading: ReadSettings, seed: int = 0) -> None:
        if reading.size[0] != reading.size[1]:
            raise ValueError(f"the official crop is square, not {reading.size}")
        self._frames, self._side, self._samples = reading.frames, reading.size[0], reading.samples
        side = self._side // PATCH
        self._grid = Grid(reading.frames // TUBELET, side, side)
        self._masked = int(ENCODER_RATIO * self._grid.space)
        self._maps = running_cell_maps(self._grid, int(CELL * DECODER_RATIO))
        self._random = np.random.default_rng(seed)

    def __call__(self, request: ClipRequest) -> OfficialSamples:
        begin = time.perf_counter()
        assert isinstance(request.file, Path)  # the official code knows no stores
        frames, ids = self._decode(request.file, request.stride, request.words[0])
        decoded = time.perf_counter()
        images = [Image.fromarray(frame).convert("RGB") for frame in frames]
        samples, boxes = [], []
        for number in range(self._samples):
            pair, place = request.words[1 + number * WORDS_PER_SAMPLE :][:2]
            box = crop_box(*images[0].size, self._side, pair, place)
            boxes.append(box)
            samples.append(self._sample(images, box))
        end = time.perf_counter()
        return OfficialSamples(samples, ids, tuple(boxes), decoded - begin, end - decoded)

    def _decode(
        self, file: Path, stride: int, word: int
    ) -> tuple[NDArray[np.uint8], tuple[int, ...]]:
        import decord

        video = decord.VideoReader(str(file), num_threads=1, ctx=decord.cpu(0))
        ids = frame_numbers(len(video), self._frames, stride, word)
        return video.get_batch(ids).asnumpy(), tuple(ids)

    def _sample(self, images: Sequence[Image.Image], box: BoxOf) -> Sample:
        x, y, width, height = box
        cropped = [image.crop((x, y, x + width, y + height)) for image in images]
        side = (self._side, self._side)
        resized = [image.resize(side, Image.Resampling.BILINEAR) for image in cropped]
        stacked = np.concatenate([np.asarray(image) for image in resized], axis=2)
        planes = torch.from_numpy(stacked).permute(2, 0, 1).contiguous().float().div(255.0)
        for number, plane in enumerate(planes):
            plane.sub_(MEAN[number % 3]).div_(STD[number % 3])
        encoder = tube_mask(self._grid, self._masked, self._random)
        decoder = np.copy(self._maps[self._random.integers(CELL)])
        clip = planes.view(self._frames, 3, *planes.shape[-2:]).transpose(0, 1)
        return clip, encoder, decoder


def frame_numbers(duration: int, frames: int, stride: int, word: int) -> list[int]:
    """The frames of one clip, counted from 0; the start is drawn by ``word``."""
    span = frames * stride
    starts = duration - span + 1
    place = 1 + (below(word, starts) if starts > 0 else 0)  # counted from 1, as there
    ids = []
    for _ in range(frames):
        ids.append(place - 1)
        if place + stride < duration:
            place += stride
    return ids


def crop_box(width: int, height: int, side: int, pair: int, place: int) -> BoxOf:
    """The multi-scale crop of one sample; ``pair`` and ``place`` are random words."""
    lengths = [int(min(width, height) * scale) for scale in SCALES]
    lengths = [side if abs(length - side) < 3 else length for length in lengths]
    pairs = [
        (across, down)
        for i, down in enumerate(lengths)
        for j, across in enumerate(lengths)
        if abs(i - j) <= 1
    ]
    across, down = pairs[below(pair, len(pairs))]
    x, y = (width - across) // 4, (height - down) // 4
    places = [(0, 0), (4, 0), (0, 4), (4, 4), (2, 2)]  # corners, centre
    places += [(0, 2), (4, 2), (2, 4), (2, 0)]  # middles of the edges
    places += [(1, 1), (3, 1), (1, 3), (3, 3)]  # inner quarter points
    steps_x, steps_y = places[below(place, len(places))]
    return steps_x * x, steps_y * y, across, down
