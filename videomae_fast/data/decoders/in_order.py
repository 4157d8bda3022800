"""A video's frames one after the other, decoded once, and its rate."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Final

from videomae_fast.data.decoders.base import Frames, VideoReader
from videomae_fast.data.decoders.pyav import PyAVReader

_AT_ONCE: Final = 32


def read_in_order(video: VideoReader, ids: Iterable[int]) -> Iterator[Frames]:
    """Frames of ascending numbers; memory does not grow with their count.

    PyAV decodes the whole file in one pass. Other readers are asked for a few frames at a time, in
    order; a decoder that keeps its place decodes each frame once, too.

    Args:
        video: open.
        ids: numbers in the video, ascending, without repeats.

    Yields:
        uint8 [H, W, 3], RGB, equal to what ``video.read`` gives.

    Raises:
        DecodeError: a frame can't be decoded, when its turn comes.
        IndexError: numbers that do not ascend, or one outside the video.
    """
    numbers = _ascending(ids, video.frame_count)
    if not isinstance(video, PyAVReader):
        while some := list(islice(numbers, _AT_ONCE)):
            yield from video.read(some)
        return
    frames = enumerate(video.decode_all())
    for number in numbers:
        yield video.convert(next(frame for place, frame in frames if place == number))


def _ascending(ids: Iterable[int], frame_count: int) -> Iterator[int]:
    before = -1
    for number in ids:
        if not before < number < frame_count:
            raise IndexError(
                f"frame {number} after {before} of a video of {frame_count}: frames are read in "
                "order"
            )
        before = number
        yield number


def frames_per_second(video: VideoReader, path: Path) -> float | None:
    """The average rate of a video file by its frames' times, else as its container states it.

    Args:
        video: open, of any decoder.
        path: of the file.

    Returns:
        Frames per second; None for a folder of images, or where the file does not say.

    Raises:
        DecodeError: the file can't be opened with PyAV.
    """
    if path.is_dir():
        return None
    if isinstance(video, PyAVReader):
        return _rate(video)
    with PyAVReader(path) as again:
        return _rate(again)


def _rate(video: PyAVReader) -> float | None:
    times, tick = video.times, float(video.stream.time_base or 0)
    if times is not None and len(times) > 1 and tick and times[-1] > times[0]:
        return (len(times) - 1) / ((times[-1] - times[0]) * tick)
    stated = video.stream.average_rate
    return float(stated) if stated else None
