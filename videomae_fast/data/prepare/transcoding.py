"""One video in, one training-friendly file out, frame for frame."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Final

from videomae_fast.data.decoders.orientation import Orientation, orientation
from videomae_fast.data.decoders.pyav import PyAVReader
from videomae_fast.data.decoders.regular import comment_of
from videomae_fast.data.errors import DecodeError, OutputError
from videomae_fast.data.prepare.settings import PrepareSettings

if TYPE_CHECKING:
    from av import VideoFrame, VideoStream
    from av.filter import Graph

# What the files are played at; what the source says beyond that is a fault of its header.
_SLOWEST: Final = Fraction(1)
_FASTEST: Final = Fraction(240)
_DEFAULT_RATE: Final = Fraction(25)
_MAX_DENOMINATOR: Final = 1001
# Filters that exchange a picture's sides, and mirror it.
_STEPS: Final = ("transpose=cclock_flip", "hflip", "vflip")
# Numbers of FFmpeg's AVColorSpace and AVColorRange.
_RGB: Final = 0
_LIMITED: Final = 1


@dataclass(frozen=True)
class Job:
    """A file to transcode: ``source`` to ``target``, written as ``partial`` until it is whole."""

    source: Path
    target: Path
    partial: Path
    settings: PrepareSettings


@dataclass(frozen=True)
class Transcoded:
    """What was written.

    frames, width, height (pixels, upright), bytes: of the new file; rate: frames per second of
    both, the source's average, as a fraction; source_codec, source_width, source_height: of the
    source, its stored pixels; numbered_by_decoding: why the source's times do not number its
    frames, or None where they do.
    """

    frames: int
    width: int
    height: int
    bytes: int
    rate: str
    source_codec: str
    source_width: int
    source_height: int
    numbered_by_decoding: str | None = None


def transcode(job: Job) -> Transcoded:
    """Transcodes one file: frame ``i`` of the new file is frame ``i`` of the source.

    Every frame is decoded, scaled, turned upright and encoded; times are replaced by
    ``i / rate``. Odd sides that are not scaled lose their last column or row, since 4:2:0 needs
    even ones. The new file is read back: it must have as many frames, and key frames where they
    belong. Then it is synced and renamed, so ``target`` is whole or not there.

    Raises :class:`DecodeError` with the reason for a source that can't be transcoded as a whole,
    :class:`OutputError` where the new file can't be written.
    """
    try:
        with PyAVReader(job.source) as reader:
            width, height, rate = _write(reader, job)
            frames = reader.frame_count
            context = reader.stream.codec_context
            codec = context.codec.canonical_name
            source_width, source_height = context.width, context.height
            numbering = reader.numbered_by_decoding
        _verify(job, frames)
        with _output(job.target):
            size = _finish(job)
    finally:
        job.partial.unlink(missing_ok=True)
    return Transcoded(
        frames, width, height, size, str(rate), codec, source_width, source_height, numbering
    )


def _write(reader: PyAVReader, job: Job) -> tuple[int, int, Fraction]:
    """Encodes all frames to ``job.partial``; returns width, height and rate."""
    import av

    rate = average_rate(reader)
    context = reader.stream.codec_context
    shape = _Shape(*job.settings.target_size(context.width, context.height))
    with _output(job.partial):
        job.partial.parent.mkdir(parents=True, exist_ok=True)
        # The index in front: a reader finds it without a seek to the end.
        container = av.open(str(job.partial), "w", format="mp4", options={"movflags": "+faststart"})
    try:
        container.metadata["comment"] = comment_of(reader.frame_count, job.settings.gop)
        stream = container.add_stream("libx264", rate=rate)
        for number, frame in enumerate(reader.decode_all()):
            picture = shape(frame, number)
            if number == 0:
                _start(stream, picture, job.settings)
            picture.pts, picture.time_base = number, 1 / rate
            with _encoding():
                packets = stream.encode(picture)
            with _output(job.partial):
                container.mux(packets)
        with _encoding():
            packets = stream.encode()
        with _output(job.partial):
            container.mux(packets)
            container.close()
    except BaseException:
        with suppress(av.error.FFmpegError):  # what was raised first says more
            container.close()
        raise
    return stream.width, stream.height, rate


def _start(stream: VideoStream, picture: VideoFrame, settings: PrepareSettings) -> None:
    """Sets the encoder up for pictures like this one."""
    stream.width, stream.height, stream.pix_fmt = picture.width, picture.height, "yuv420p"
    stream.options = {**settings.encoder_options()}
    context = stream.codec_context
    context.thread_count = 1  # files are done side by side
    # Without its colour space the new file would be shown with another matrix.
    context.color_range = picture.color_range
    context.colorspace = picture.colorspace
    context.color_primaries = picture.color_primaries
    context.color_trc = picture.color_trc


class _Shape:
    """Frames as upright 4:2:0 pictures of one even size, in limited range.

    width, height: pixels to scale to, before turning.
    """

    def __init__(self, width: int, height: int) -> None:
        from av.video.reformatter import VideoReformatter

        if min(width, height) < 2:
            raise DecodeError(f"too small: {width}x{height} pixels")
        self._reformatter = VideoReformatter()
        self._width, self._height = width, height
        self._orientation: Orientation | None = None
        self._graph: Graph | None = None

    def __call__(self, frame: VideoFrame, number: int) -> VideoFrame:
        from av.video.frame import PictureType
        from av.video.reformatter import Colorspace

        turned = orientation(frame)
        picture = self._reformatter.reformat(
            frame,
            self._width,
            self._height,
            format="yuv420p",
            # 4:2:0 of RGB needs a matrix; else the colours stay as they are coded.
            dst_colorspace=Colorspace.ITU709 if frame.colorspace == _RGB else None,
            interpolation="BICUBIC",
            dst_color_range=_LIMITED,
            threads=1,
        )
        if number == 0:
            self._orientation, self._graph = turned, self._filters(picture, turned)
        elif turned != self._orientation:
            raise DecodeError(f"frame {number} is turned by another angle than those before")
        if self._graph is not None:
            self._graph.vpush(picture)
            picture = self._graph.vpull()
        picture.pict_type = PictureType.NONE  # else the encoder repeats the source's key frames
        return picture

    def _filters(self, picture: VideoFrame, turned: Orientation) -> Graph | None:
        """Cropping to even sides, turning and mirroring; None where there is nothing to do."""
        import av

        even = self._width - self._width % 2, self._height - self._height % 2
        steps = [] if even == (self._width, self._height) else ["crop={}:{}:0:0".format(*even)]
        steps += [step for step, needed in zip(_STEPS, turned, strict=True) if needed]
        if not steps:
            return None
        graph = av.filter.Graph()
        nodes = [
            graph.add_buffer(
                width=self._width,
                height=self._height,
                format=picture.format,
                time_base=Fraction(1, 25),
            )
        ]
        for step in steps:
            name, _, arguments = step.partition("=")
            nodes.append(graph.add(name, arguments or None))
        nodes.append(graph.add("buffersink"))
        graph.link_nodes(*nodes).configure()
        return graph


def average_rate(reader: PyAVReader) -> Fraction:
    """Frames per second on average, from the frames' times or what the container says.

    Limited to 1 ... 240, with a denominator of at most 1001; 25 where nothing is known.
    """
    times, base = reader.times, reader.stream.time_base
    if times is not None and len(times) > 1 and base is not None:
        rate = Fraction(len(times) - 1) / ((times[-1] - times[0]) * base)
    else:
        rate = Fraction(reader.stream.average_rate or 0) or _DEFAULT_RATE
    return min(max(rate, _SLOWEST), _FASTEST).limit_denominator(_MAX_DENOMINATOR)


def _verify(job: Job, frames: int) -> None:
    """Reads the new file back, as training does."""
    with PyAVReader(job.partial, scan=True) as written:
        if written.frame_count != frames:
            raise DecodeError(f"{written.frame_count} of {frames} frames came out")
        if written.key_frames != list(range(0, frames, job.settings.gop)):
            raise DecodeError(f"key frames came out at {written.key_frames[:4]} ...")
        times = written.times
    with PyAVReader(job.partial) as written:
        if written.times != times:
            raise DecodeError("the header came out with other times than the frames")


def _finish(job: Job) -> int:
    """Syncs and renames the new file; returns its bytes."""
    with job.partial.open("rb") as file:
        os.fsync(file.fileno())
        size = os.fstat(file.fileno()).st_size
    job.target.parent.mkdir(parents=True, exist_ok=True)
    os.replace(job.partial, job.target)
    return size


@contextmanager
def _encoding() -> Iterator[None]:
    """What the encoder refuses is a fault of the source (such as a side above 16,384 pixels)."""
    from av.error import FFmpegError

    try:
        yield
    except FFmpegError as error:
        raise DecodeError(f"can't be encoded: {error.strerror or error}") from error


@contextmanager
def _output(path: Path) -> Iterator[None]:
    """What goes wrong here is no fault of the source: no file after it would fare better."""
    from av.error import FFmpegError

    try:
        yield
    except (OSError, FFmpegError) as error:
        raise OutputError(f"{path}: can't be written: {error.strerror or error}") from error
