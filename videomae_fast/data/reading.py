"""One draw read by one process: from a request, which needs no list, to the pixels."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from videomae_fast.data.cache import CacheCounts, CachedVideos
from videomae_fast.data.core_wait import seconds_without_core
from videomae_fast.data.decoders import DECODERS, FolderReader, VideoReader
from videomae_fast.data.decoders.content import Content, Video, size_of, taken
from videomae_fast.data.decoders.excerpt import excerpt
from videomae_fast.data.decoders.orientation import UPRIGHT, orientation
from videomae_fast.data.decoders.pyav import PyAVReader
from videomae_fast.data.errors import one_file
from videomae_fast.data.order import Draw
from videomae_fast.data.store.fetched import FetchedClip
from videomae_fast.data.store.opening import StoredClip
from videomae_fast.data.views.crops import Size
from videomae_fast.data.views.multi_scale import MULTI_SCALE
from videomae_fast.data.views.rule import WORDS_PER_SAMPLE, ClipShape, Plans, ViewRule

HandOver = Literal["clips", "frames", "encoded"]
PREFETCH_BYTES: Final = 10**9
WHOLE_BYTES: Final = 4 << 20  # of files that a device gets as they are; of larger ones a part
STORE_TIMEOUT: Final = 300.0
Room = Callable[[tuple[int, ...]], NDArray[np.uint8]]
"""Gives memory for an array of a shape."""


@dataclass(frozen=True, slots=True)
class ClipRequest:
    """A draw with all that is needed to read it.

    Attributes:
        draw: which entry, for which step.
        file: the video or frame folder, or a row of a store, fetched or not.
        list_path, line: where a list names it; of a store its path and the number of the row.
        label: as the list has it; -1: none.
        start, total: of a frame folder: its first image's number, how many; total -1 for a video.
        name_pattern: file name of a frame folder's image, formatted with its number.
        stride: frames from one sampled frame to the next.
        words: the draw's random words.
    """

    draw: Draw
    file: Path | StoredClip | FetchedClip
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
        """For messages: the file, and the line that names it; or source, store and row."""
        if isinstance(self.file, FetchedClip):
            return str(self.file.clip)
        if isinstance(self.file, StoredClip):
            return str(self.file)
        return f"{self.file} ({self.list_path}:{self.line})"

    @property
    def mask_seeds(self) -> list[int]:
        """One per sample; 63 bits, as seeds are int64 and not negative."""
        return [word >> 1 for word in self.words[3::WORDS_PER_SAMPLE]]


@dataclass(frozen=True)
class ReadSettings:
    """How requests are read.

    Attributes:
        frames: per clip.
        size: (height, width) of the clips in pixels.
        samples: clips per video.
        decoder: of the CPU, a key of ``DECODERS``.
        hand_over: what is passed on: "clips" (cropped), "frames" (decoded, for a device that crops)
            or "encoded" (the file, for a device that decodes; "frames" for videos that it can't
            decode).
        codecs: what the device decodes, FFmpeg's names.
        cache: a folder of decoded videos, or None.
        rule: which frames and views make the clips.
        prefetch_bytes: of clips of object stores that this process holds ahead.
        store_timeout: seconds after which a store that can't be reached is given up.
    """

    frames: int
    size: Size
    samples: int
    decoder: str
    hand_over: HandOver = "clips"
    codecs: frozenset[str] = frozenset()
    cache: CachedVideos | None = None
    rule: ViewRule = MULTI_SCALE
    prefetch_bytes: int = PREFETCH_BYTES
    store_timeout: float = STORE_TIMEOUT

    @property
    def shape(self) -> ClipShape:
        return ClipShape(self.samples, self.frames, self.size)

    def open(self, request: ClipRequest) -> AbstractContextManager[VideoReader]:
        """What a request reads, to be used in a ``with`` block."""
        if request.total < 0:
            return self.open_file(request.file)
        assert isinstance(request.file, Path)  # a store has no folders
        return FolderReader(request.file, request.start, request.total, request.name_pattern)

    def open_file(self, path: Video) -> VideoReader:
        """A video, through the cache where there is one."""
        decoder = DECODERS[self.decoder]
        return decoder.open(path) if self.cache is None else self.cache.open(path, decoder)

    def demuxed(self, content: Content) -> AbstractContextManager[PyAVReader]:
        """A file that a device may decode, to be used in a ``with`` block."""
        return PyAVReader(content)

    def why_not_encoded(self, request: ClipRequest) -> str | None:
        """Why a file is decoded here although the device could, or None."""
        return None

    def ids(self, video: VideoReader, request: ClipRequest) -> tuple[int, ...]:
        """Numbers of the frames that are read of an open video."""
        return self.rule.ids(video.frame_count, request.stride, request.words, self.shape)

    def plans(self, frame: Size, duration: int, request: ClipRequest) -> Plans:
        """What is done to frames of this (height, width), for each sample."""
        return self.rule.plans(frame, duration, request.stride, request.words, self.shape)

    def bytes_of(self, plans: Plans) -> tuple[int, ...]:
        """The shape of the clips of plans, as bytes: [samples, T, h, w, bytes of a pixel]."""
        return (self.samples, self.frames, *self.size, 3 * self.rule.dtype.itemsize)

    def make(self, frames: NDArray[np.uint8], plans: Plans, out: NDArray[np.uint8]) -> None:
        """Frames [N, H, W, 3] to clips of these bytes."""
        self.rule.make(frames, plans, self.shape, out.view(self.rule.dtype))


@dataclass(frozen=True)
class ReadResult:
    """What a request gives.

    Attributes:
        kind: which of three forms the data has.
        data: uint8, [S, T, h, w, 3] clips (of fp32 ones the bytes, [S, T, h, w, 12]), [N, H, W, 3]
            frames or [bytes] of a file that has the video or a part of it.
        plans: of the samples.
        ids: frame numbers in the video.
        frame_count: of the video.
        part: of a file that has a part of it, the number of the part's first frame and how many it
            has; None: all of it.
        decode_seconds, crop_seconds: of this process.
        waited_seconds: of decode_seconds, those spent waiting for the file, not computing.
        kept_back: why an encoded video was decoded here.
        cached: what the cache did.
        queued_seconds: of decode_seconds, those in which it waited for a free core; 0 where the
            system doesn't tell this from waiting for the file.
        numbering: why it had to be decoded to number its frames, or None.
    """

    kind: HandOver
    data: NDArray[np.uint8]
    plans: Plans
    ids: tuple[int, ...]
    frame_count: int
    decode_seconds: float = 0.0
    crop_seconds: float = 0.0
    waited_seconds: float = 0.0
    kept_back: str | None = None
    cached: CacheCounts | None = None
    queued_seconds: float = 0.0
    numbering: str | None = None
    part: tuple[int, int] | None = None


def read(request: ClipRequest, settings: ReadSettings, room: Room | None = None) -> ReadResult:
    """Reads a request.

    Args:
        request: a draw.
        settings: how to read it.
        room: gives memory for cropped clips; None takes new memory.

    Returns:
        Clips, frames or the file, as the settings say.

    Raises:
        DecodeError: the file can't be read, whatever it made a library raise.
        OutputError: ``room`` has no memory.
    """
    with one_file():
        return _read(request, settings, room)


def _read(request: ClipRequest, settings: ReadSettings, room: Room | None) -> ReadResult:
    clock = _Clock()
    kept_back = None
    if settings.hand_over == "encoded" and request.total < 0:
        result = settings.why_not_encoded(request) or _encoded(request, settings)
        if isinstance(result, ReadResult):
            return result
        kept_back = result
    with settings.open(request) as video:
        ids = settings.ids(video, request)
        decoded = video.read(ids)
        count, numbering = video.frame_count, video.numbered_by_decoding
    cached = None if settings.cache is None else settings.cache.take_counts()
    plans = settings.plans((decoded.shape[1], decoded.shape[2]), count, request)
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
        return ReadResult("frames", decoded, plans, ids, count, **told)
    shape = settings.bytes_of(plans)
    out = np.empty(shape, dtype=np.uint8) if room is None else room(shape)
    settings.make(decoded, plans, out)
    crop_seconds = clock.told()[0] - seconds
    return ReadResult("clips", out, plans, ids, count, crop_seconds=crop_seconds, **told)


def _encoded(request: ClipRequest, settings: ReadSettings) -> ReadResult | str:
    """The file with what the device needs to know of it, or why the device can't decode it."""
    clock = _Clock()
    content = taken(request.file)
    with settings.demuxed(content) as video:
        ids = settings.ids(video, request)
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
        count = video.frame_count
        plans = settings.plans((first.height, first.width), count, request)
        found = excerpt(video, ids) if size_of(content) > WHOLE_BYTES else None
    if found is not None:
        data = found.data
    elif isinstance(content, Path):
        data = np.fromfile(content, dtype=np.uint8)
    else:
        data = np.frombuffer(content.content, dtype=np.uint8)
    seconds, waited, queued = clock.told()
    return ReadResult(
        "encoded", data, plans, ids, count, seconds, waited_seconds=waited, queued_seconds=queued,
        part=None if found is None else (found.first, found.frame_count),
    )  # fmt: skip


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
