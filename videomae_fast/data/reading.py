"""One draw read by one process: from a request, which needs no list, to the pixels."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from videomae_fast.data.cache import CacheCounts, CachedVideos
from videomae_fast.data.core_wait import seconds_without_core
from videomae_fast.data.decoders import DECODERS, FolderReader, VideoReader
from videomae_fast.data.decoders.orientation import UPRIGHT, orientation
from videomae_fast.data.decoders.pyav import PyAVReader
from videomae_fast.data.errors import one_file
from videomae_fast.data.order import Draw, below
from videomae_fast.data.views.crops import (
    OFFSETS,
    SCALE_PAIRS,
    Box,
    Size,
    crop_views,
    multi_scale_box,
)
from videomae_fast.data.views.sampling import frame_ids, possible_starts

HandOver = Literal["clips", "frames", "encoded"]
Room = Callable[[tuple[int, ...]], NDArray[np.uint8]]
"""Gives memory for an array of a shape."""

# Random words of a draw: one for the start, then this many for each sample (scale pair,
# place, mask seed, and one kept free for a flip).
WORDS_PER_SAMPLE = 4


@dataclass(frozen=True, slots=True)
class ClipRequest:
    """A draw with all that is needed to read it.

    file: the video or frame folder; list_path, line, label: where a list names it (label -1: none);
    start, total: of a frame folder, total -1 for a video; name_pattern: of its images; stride:
    frames from one sampled frame to the next; words: the draw's random words.
    """

    draw: Draw
    file: Path
    list_path: Path
    line: int
    label: int
    start: int
    total: int
    name_pattern: str
    stride: int
    words: tuple[int, ...]

    @property
    def name(self) -> str:
        """For messages: the file, and the line that names it."""
        return f"{self.file} ({self.list_path}:{self.line})"

    @property
    def mask_seeds(self) -> list[int]:
        """One per sample; 63 bits, as seeds are int64 and not negative."""
        return [word >> 1 for word in self.words[3::WORDS_PER_SAMPLE]]


@dataclass(frozen=True)
class ReadSettings:
    """How requests are read.

    frames: per clip; size: (height, width) of the clips in pixels; samples: clips per video;
    decoder: of the CPU; cache: a folder of decoded videos, or None; hand_over: what is passed on:
    "clips" (cropped), "frames" (decoded, for a device that crops) or "encoded" (the file, for a
    device that decodes; "frames" for videos that it can't decode); codecs: what the device decodes,
    FFmpeg's names.
    """

    frames: int
    size: Size
    samples: int
    decoder: str
    hand_over: HandOver = "clips"
    codecs: frozenset[str] = frozenset()
    cache: CachedVideos | None = None


@dataclass(frozen=True)
class ReadResult:
    """What a request gives.

    data: uint8, [S, T, h, w, 3] clips, [T, H, W, 3] frames or [bytes] of a file; boxes: of the
    samples, where they are still to be cropped; ids: frame numbers; frame_count: of the video;
    decode_seconds, crop_seconds: of this process; waited_seconds, queued_seconds: of
    decode_seconds, those in which it did not compute but waited for the file, and for a free core
    (both are in the first where the system doesn't tell them apart); kept_back: why an encoded
    video was decoded here; cached: what the cache did; numbering: why it had to be
    decoded to number its frames, or None.
    """

    kind: HandOver
    data: NDArray[np.uint8]
    boxes: tuple[Box, ...]
    ids: tuple[int, ...]
    frame_count: int
    decode_seconds: float = 0.0
    crop_seconds: float = 0.0
    waited_seconds: float = 0.0
    kept_back: str | None = None
    cached: CacheCounts | None = None
    queued_seconds: float = 0.0
    numbering: str | None = None


def read(request: ClipRequest, settings: ReadSettings, room: Room | None = None) -> ReadResult:
    """Reads a request; cropped clips are made in the memory that ``room`` gives, or in new memory.

    Raises :class:`~videomae_fast.data.errors.DecodeError` for a file that can't be read, whatever
    it made a library raise, and :class:`OutputError` where ``room`` has no memory.
    """
    with one_file():
        return _read(request, settings, room)


def _read(request: ClipRequest, settings: ReadSettings, room: Room | None) -> ReadResult:
    clock = _Clock()
    kept_back = None
    if settings.hand_over == "encoded" and request.total < 0:
        result = _encoded(request, settings)
        if isinstance(result, ReadResult):
            return result
        kept_back = result
    with _open(request, settings) as video:
        ids = _ids(video.frame_count, request, settings)
        decoded = video.read(ids)
        count, numbering = video.frame_count, video.numbered_by_decoding
    cached = None if settings.cache is None else settings.cache.take_counts()
    boxes = _boxes(decoded.shape[2], decoded.shape[1], request, settings)
    seconds, waited, queued = clock.told()
    told: dict[str, Any] = {
        "decode_seconds": seconds,
        "waited_seconds": waited,
        "queued_seconds": queued,
        "kept_back": kept_back,
        "cached": cached,
        "numbering": numbering,
    }
    if settings.hand_over != "clips":
        return ReadResult("frames", decoded, boxes, ids, count, **told)
    out = None if room is None else room((len(boxes), len(decoded), *settings.size, 3))
    clips = crop_views(decoded, boxes, settings.size, out)
    crop_seconds = clock.told()[0] - seconds
    return ReadResult("clips", clips, (), ids, count, crop_seconds=crop_seconds, **told)


def _encoded(request: ClipRequest, settings: ReadSettings) -> ReadResult | str:
    """The file with what the device needs to know of it, or why the device can't decode it."""
    clock = _Clock()
    with PyAVReader(request.file) as video:
        ids = _ids(video.frame_count, request, settings)
        context = video.stream.codec_context
        codec, pixels = context.codec.canonical_name, context.pix_fmt
        if codec not in settings.codecs:
            return f"codec {codec}"
        if pixels not in ("yuv420p", "yuvj420p"):
            return f"pixel format {pixels}"
        if (why := video.why_only_here()) is not None:
            return why
        first = video.first
        if orientation(first) != UPRIGHT:
            return "rotated by metadata"
        boxes = _boxes(first.width, first.height, request, settings)
        count = video.frame_count
    data = np.fromfile(request.file, dtype=np.uint8)
    seconds, waited, queued = clock.told()
    return ReadResult(
        "encoded", data, boxes, ids, count, seconds, waited_seconds=waited, queued_seconds=queued
    )


class _Clock:
    """Seconds since it was made, those of them in which this process waited for something else
    than a core, and those in which it had no core."""

    def __init__(self) -> None:
        self._begin, self._computed = time.perf_counter(), time.process_time()
        self._queued = seconds_without_core()

    def told(self) -> tuple[float, float, float]:
        seconds = time.perf_counter() - self._begin
        idle = max(0.0, seconds - (time.process_time() - self._computed))
        queued = min(idle, seconds_without_core() - self._queued)
        return seconds, idle - queued, queued


def _ids(duration: int, request: ClipRequest, settings: ReadSettings) -> tuple[int, ...]:
    starts = possible_starts(duration, settings.frames, request.stride)
    start = below(request.words[0], starts)
    return tuple(frame_ids(duration, start, settings.frames, request.stride).tolist())


def _boxes(
    width: int, height: int, request: ClipRequest, settings: ReadSettings
) -> tuple[Box, ...]:
    boxes = []
    for sample in range(settings.samples):
        pair, offset = request.words[1 + sample * WORDS_PER_SAMPLE :][:2]
        pair, offset = below(pair, len(SCALE_PAIRS)), below(offset, len(OFFSETS))
        boxes.append(multi_scale_box(width, height, settings.size, pair, offset))
    return tuple(boxes)


def _open(request: ClipRequest, settings: ReadSettings) -> VideoReader:
    if request.total < 0:
        decoder = DECODERS[settings.decoder]
        if settings.cache is not None:
            return settings.cache.open(request.file, decoder)
        return decoder.open(request.file)
    return FolderReader(request.file, request.start, request.total, request.name_pattern)
