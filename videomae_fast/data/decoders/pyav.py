"""PyAV (FFmpeg in a wheel): the default decoder.

Opening reads the packets once without decoding, which gives every frame's time and the key
frames; prepared files say both in their header. Reading seeks to the key frame before a wanted
frame and decodes on from there. One thread: a loader process is one core's work, and FFmpeg's own
threads cost more per frame.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from videomae_fast.data.decoders.base import Frames, ReaderBase, check_file, check_ids, rotate
from videomae_fast.data.decoders.regular import regular_times
from videomae_fast.data.errors import DecodeError

if TYPE_CHECKING:
    from av import VideoFrame, VideoStream
    from av.container import InputContainer
    from av.packet import Packet

# A seek flushes the decoder; decoding on is cheaper when it passes only a few frames.
_SEEK_AHEAD: Final = 8
# Decoders that can leave out frames which no other frame refers to (about a fifth of the time).
_LEAVES_OUT: Final = ("h264", "hevc")


def why_not() -> str | None:
    """Why PyAV can't be used here, or None."""
    return None if find_spec("av") else "PyAV is not installed: pip install av"


class PyAVReader(ReaderBase):
    """A video through PyAV; see :class:`~videomae_fast.data.decoders.base.VideoReader`.

    Frames of another size than the stream's are scaled to it. A frame that FFmpeg marks as
    damaged counts as one that can't be decoded.

    scan: read all packets of a prepared file, too, which finds one that is cut off.

    Raises :class:`DecodeError` for a file that is not a video, has no frame or is cut off.
    """

    def __init__(self, path: Path, *, scan: bool = False) -> None:
        check_file(path)
        self._path = path
        self._container, self._stream = _open(path)
        try:
            context = self._stream.codec_context
            self._converter = _Converter(context.width, context.height)
            # Presentation times of the frames, and (presentation, decoding) times of key frames.
            known = None if scan else regular_times(self._container, self._stream)
            self._reordered = bool(context.has_b_frames)
            self._times, self._keys = self._scan() if known is None else known
        except BaseException:
            self._container.close()
            raise

    @property
    def frame_count(self) -> int:
        return len(self._times)

    @property
    def stream(self) -> VideoStream:
        """FFmpeg's stream, for what the container says about it."""
        return self._stream

    @property
    def container_format(self) -> str:
        """FFmpeg's name of the container, like ``mov,mp4,m4a,3gp,3g2,mj2``."""
        return self._container.format.name

    @property
    def times(self) -> list[int] | None:
        """The frames' presentation times in units of the stream's time base, ascending.

        None where the file stores no usable ones.
        """
        return self._times if self._keys else None

    @property
    def key_frames(self) -> list[int]:
        """Numbers of the frames that can be decoded alone; empty where :attr:`times` is None."""
        return [bisect.bisect_left(self._times, shown) for shown, _ in self._keys]

    @property
    def reordered(self) -> bool:
        """Whether frames are stored in another order than they are shown in (B-frames)."""
        return self._reordered

    def close(self) -> None:
        self._container.close()

    def decode_all(self) -> Iterator[VideoFrame]:
        """Every frame in order as FFmpeg gives it: neither converted nor rotated.

        Frame ``i`` is the one that ``read([i])`` returns.

        Raises :class:`DecodeError` at the first frame that can't be decoded or is damaged.
        """
        numbered, number = not self._keys, 0
        decoded = self._frames_from_start()
        while True:
            with _translated():
                frame = next(decoded, None)
            if frame is None or number == self.frame_count:
                break
            if not numbered:
                if frame.pts is None or frame.pts < self._times[number]:
                    continue
                if frame.pts > self._times[number]:
                    break
            if frame.is_corrupt:
                break
            yield frame
            number += 1
        if number < self.frame_count:
            raise DecodeError(f"frame {number} of {self.frame_count} can't be decoded")

    def read(self, ids: Sequence[int]) -> Frames:
        numbers = check_ids(ids, self.frame_count)
        clip = _Clip([self._times[number] for number in numbers], self._converter)
        with _translated():
            for time, frame in self._decode_seeking(clip.missing()):
                clip.put(time, frame)
            if missing := clip.missing():
                # A seek can land where decoding does not recover; from the start it may.
                for time, frame in self._decode_from_start(missing):
                    clip.put(time, frame)
        if missing := clip.missing():
            number = bisect.bisect_left(self._times, missing[0])
            raise DecodeError(f"frame {number} of {self.frame_count} can't be decoded")
        return clip.frames()

    def _scan(self) -> tuple[list[int], list[tuple[int, int]]]:
        """Reads all packets of the stream; sorts out the frames' and key frames' times."""
        times: list[int | None] = []
        keys: list[tuple[int, int]] = []
        indexed = len(self._stream.index_entries) if "mov" in self._container.format.name else 0
        packets = 0
        is_vp8 = self._stream.codec_context.codec.canonical_name == "vp8"
        with _translated():
            for packet in self._container.demux(self._stream):
                if not packet.size:
                    continue
                packets += 1
                # VP8 says in its first byte whether a frame is only there to be referred to.
                if packet.is_discard or (is_vp8 and not bytes(packet)[0] >> 4 & 1):
                    continue
                times.append(packet.pts)
                if packet.is_keyframe and packet.pts is not None:
                    keys.append((packet.pts, packet.pts if packet.dts is None else packet.dts))
        if packets < indexed:
            raise DecodeError(f"truncated: {packets} of {indexed} frames are in the file")
        known = sorted({time for time in times if time is not None})
        self._reordered = known != times
        # AVI has decoding times only, which says nothing once frames are reordered.
        reordered = self._container.format.name == "avi" and self._stream.codec_context.has_b_frames
        if len(known) < len(times) or reordered:
            # The container stores no (usable) presentation times: number what the decoder gives.
            self._reordered = bool(self._stream.codec_context.has_b_frames)
            with _translated():
                known, keys = list(range(sum(1 for _ in self._frames_from_start()))), []
        if not known:
            raise DecodeError("no frames in the video stream")
        return known, sorted(keys)

    def _decode_seeking(self, wanted: list[int]) -> Iterator[tuple[int, VideoFrame]]:
        """Yields (time, frame) for those of ``wanted`` (ascending) that can be decoded."""
        position, shown = 0, frozenset(wanted)
        while position < len(wanted):
            key = self._key_before(wanted[position])
            if key is None:
                return
            for frame in self._frames_from_key(key, shown):
                if frame.pts is None or frame.pts < wanted[position]:
                    continue
                while position < len(wanted) and wanted[position] < frame.pts:
                    position += 1  # passed without being shown: left to the caller
                if position < len(wanted) and wanted[position] == frame.pts:
                    if not frame.is_corrupt:
                        yield frame.pts, frame
                    position += 1
                if position == len(wanted) or self._worth_a_seek(frame.pts, wanted[position]):
                    break
            else:
                return

    def _decode_from_start(self, wanted: list[int]) -> Iterator[tuple[int, VideoFrame]]:
        """As :meth:`_decode_seeking`, but without trusting any seek."""
        numbered = not self._keys
        left = set(wanted)
        for number, frame in enumerate(self._frames_from_start()):
            time = number if numbered else frame.pts
            if time is not None and time in left:
                left.discard(time)
                if not frame.is_corrupt:
                    yield time, frame
                if not left:
                    return

    def _key_before(self, time: int) -> tuple[int, int] | None:
        """The last key frame shown at or before ``time``.

        Frames of an open group that are shown before their key frame are thereby decoded from
        the key frame before it, which they also refer to.
        """
        index = bisect.bisect_right(self._keys, time, key=lambda key: key[0])
        return self._keys[index - 1] if index else None

    def _worth_a_seek(self, now: int, time: int) -> bool:
        key = self._key_before(time)
        if key is None or key[0] <= now:
            return False
        passed = bisect.bisect_left(self._times, key[0]) - bisect.bisect_left(self._times, now)
        return passed > _SEEK_AHEAD

    def _frames_from_key(self, key: tuple[int, int], shown: frozenset[int]) -> Iterator[VideoFrame]:
        """Decodes from a key frame on; of the frames outside ``shown`` only what is needed."""
        context = self._stream.codec_context
        leaves_out = context.codec.canonical_name in _LEAVES_OUT
        everything: bool | None = None
        for packet in self._packets_from_key(key):
            if leaves_out:
                wanted = packet.pts is None or packet.pts in shown
                if wanted != everything:  # setting it costs more than a look
                    context.skip_frame = "DEFAULT" if wanted else "NONREF"
                    everything = wanted
            yield from _decode(packet)

    def _packets_from_key(self, key: tuple[int, int]) -> Iterator[Packet[VideoStream]]:
        """Packets from the key frame or an earlier one on; none where no seek leads there."""
        # Containers differ in the time they seek by. The presentation time is the later one:
        # it lands nearest, and where it lands too late the decoding time does not.
        for target in key:
            self._container.seek(target, stream=self._stream, backward=True)
            packets = self._container.demux(self._stream)
            first = next(packets)
            time = first.pts if first.dts is None else first.dts
            if time is not None and time <= key[1]:
                yield first
                yield from packets
                return

    def _frames_from_start(self) -> Iterator[VideoFrame]:
        self._container.close()
        self._container, self._stream = _open(self._path)
        for packet in self._container.demux(self._stream):
            yield from _decode(packet)


class _Clip:
    """The frames of one call of ``read``, by their times; each is converted while it is cached.

    times: of the frames in the order of the result; a time may come several times.
    """

    def __init__(self, times: Sequence[int], converter: _Converter) -> None:
        self._places: dict[int, list[int]] = {}
        for place, time in enumerate(times):
            self._places.setdefault(time, []).append(place)
        self._count, self._converter = len(times), converter
        self._frames: Frames | None = None

    def missing(self) -> list[int]:
        """The times of the frames that were not put yet, ascending."""
        return sorted(self._places)

    def put(self, time: int, frame: VideoFrame) -> None:
        picture = self._converter(frame)
        if self._frames is None:
            self._frames = np.empty((self._count, *picture.shape), dtype=np.uint8)
        self._frames[self._places.pop(time)] = picture

    def frames(self) -> Frames:
        """uint8 [times, H, W, 3], once nothing is missing."""
        assert self._frames is not None
        return self._frames


class _Converter:
    """Frames to upright RGB, uint8 [H, W, 3], at one size; keeps FFmpeg's scaler between calls.

    In this thread: by default FFmpeg starts one per core for each frame, which costs more than the
    conversion.
    """

    def __init__(self, width: int, height: int) -> None:
        from av.video.reformatter import VideoReformatter

        self._reformatter = VideoReformatter()
        self._width, self._height = width, height

    def __call__(self, frame: VideoFrame) -> Frames:
        rgb = self._reformatter.reformat(
            frame,
            self._width,
            self._height,
            format="rgb24",
            interpolation="BILINEAR",
            threads=1,
        )
        return rotate(np.asarray(rgb.to_ndarray(), dtype=np.uint8), frame.rotation)


def _decode(packet: Packet[VideoStream]) -> Iterator[VideoFrame]:
    """The frames that a packet completes; a damaged packet completes none."""
    from av.error import InvalidDataError
    from av.video.frame import VideoFrame

    try:
        frames = packet.decode()
    except InvalidDataError:
        return
    for frame in frames:
        if isinstance(frame, VideoFrame):
            yield frame


def _open(path: Path) -> tuple[InputContainer, VideoStream]:
    import av

    # The prefix keeps FFmpeg from reading a protocol into names like "a:b.mp4".
    name = f"file:{path}"
    try:
        container = av.open(name, metadata_errors="replace")
    except av.error.FFmpegError as error:
        reason = _reason(name, error)
        with path.open("rb") as file:
            if file.read(8)[4:] == b"ftyp":
                reason += ": an MP4 file that is cut off or damaged"
        raise DecodeError(reason) from error
    stream = container.streams.best("video")
    cover = av.stream.Disposition.attached_pic  # the picture of an audio file
    if not isinstance(stream, av.VideoStream) or stream.disposition & cover:
        empty = not container.streams
        container.close()
        if empty and "mov" in container.format.name:
            raise DecodeError("no streams: the moov atom is missing (truncated?)")
        raise DecodeError("no video stream")
    stream.codec_context.thread_count = 1
    for other in container.streams:
        if other.index != stream.index:
            other.discard = av.stream.Discard.all  # sound is not even read
    return container, stream


def _reason(name: str, error: OSError | Exception) -> str:
    """What FFmpeg says about a file it can't open, with what it only writes to its log."""
    import av

    level = av.logging.get_level()
    try:
        av.logging.set_level(av.logging.ERROR)
        with av.logging.Capture() as log, suppress(av.error.FFmpegError):
            av.open(name).close()
    finally:
        av.logging.set_level(level)
    details = [line.strip() for _, _, line in log if line.strip()]
    reason = getattr(error, "strerror", None) or str(error)
    return f"{reason} ({'; '.join(details)})" if details else reason


@contextmanager
def _translated() -> Iterator[None]:
    """Turns FFmpeg's complaints about the file into :class:`DecodeError`, and nothing else."""
    from av.error import FFmpegError

    try:
        yield
    except FFmpegError as error:
        raise DecodeError(getattr(error, "strerror", None) or str(error)) from error
