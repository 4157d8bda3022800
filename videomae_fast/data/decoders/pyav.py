"""PyAV (FFmpeg in a wheel): the default decoder.

Opening reads the packets once without decoding, which gives every frame's time and the key
frames; prepared files say both in their header. Reading seeks to the key frame before a wanted
frame and decodes on from there, comparing every packet with those read first. Where times or a
seek can't be relied on, decoding from the start decides (:mod:`~.numbering`). One thread: a loader
process is one core's work, and FFmpeg's own threads cost more per frame.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import cached_property
from importlib.util import find_spec
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from videomae_fast.data.decoders.base import Frames, ReaderBase, check_ids
from videomae_fast.data.decoders.content import Video, taken
from videomae_fast.data.decoders.decoding import (
    AstrayError,
    DisorderError,
    Seeker,
    decode_from_start,
    translated,
)
from videomae_fast.data.decoders.numbering import (
    Numbering,
    number_frames,
    settle_late,
    unusual_gaps,
)
from videomae_fast.data.decoders.opening import KNOWN_EVERYWHERE, open_stream
from videomae_fast.data.decoders.orientation import Orientation, orientation
from videomae_fast.data.decoders.packets import DEEPEST, Key, read_packets
from videomae_fast.data.decoders.regular import regular_packets
from videomae_fast.data.errors import DecodeError

if TYPE_CHECKING:
    from av import VideoFrame, VideoStream
    from av.packet import Packet


# A seek flushes the decoder; decoding on is cheaper when it passes only a few frames.
_SEEK_AHEAD: Final = 8


def why_not() -> str | None:
    """Why PyAV can't be used here, or None."""
    return None if find_spec("av") else "PyAV is not installed: pip install av"


class PyAVReader(ReaderBase):
    """A video through PyAV; see :class:`~videomae_fast.data.decoders.base.VideoReader`.

    Frames of another size than the stream's are scaled to it. A frame that FFmpeg marks as damaged
    counts as one that can't be decoded.

    Args:
        video: path of the file, or its bytes.
        scan: read all packets of a prepared file, too, which finds one that is cut off.

    Raises:
        DecodeError: the file is no video, has no frame or is cut off.
    """

    def __init__(self, video: Video, *, scan: bool = False) -> None:
        self._content = taken(video)
        self._container, self._stream = open_stream(self._content)
        try:
            with translated():
                context = self._stream.codec_context
                self._converter = _Converter(context.width, context.height)
                known = None if scan else regular_packets(self._container, self._stream)
                self.is_prepared = known is not None
                if known is not None:
                    numbering, self._packets = Numbering(known[0]), known[1]
                    self._seeker = Seeker(self._container, self._stream, self._packets)
                    self._reordered = bool(context.has_b_frames)
                else:
                    self._packets = read_packets(self._container, self._stream)
                    self._seeker = Seeker(self._container, self._stream, self._packets)
                    numbering = number_frames(
                        self._content, self._stream, self._packets, self._seeker
                    )
                    self._reordered = self._packets.reordered
                self._number_by(numbering)
        except BaseException:
            self._container.close()
            raise

    def _number_by(self, numbering: Numbering) -> None:
        self._numbering, self._times = numbering, numbering.times
        self._unusual: list[int] | None = [] if self.is_prepared else None
        # Where decoding can start; none where times don't tell the way there.
        self._keys: list[Key] = []
        if not numbering.by_count and not self._packets.jumps_back:
            self._keys = self._packets.keys

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
        return None if self._numbering.by_count else self._times

    @property
    def numbered_by_decoding(self) -> str | None:
        """See :class:`~videomae_fast.data.decoders.base.VideoReader`."""
        return self._numbering.why

    @cached_property
    def first(self) -> VideoFrame:
        """A frame at the start as FFmpeg gives it, for what all have in common.

        Raises:
            DecodeError: it can't be decoded.
        """
        if self._keys:
            with suppress(AstrayError, DisorderError), translated():
                for frame in self._seeker.frames_from(self._keys[0]):
                    return frame
        return next(self.decode_all())

    def why_only_here(self) -> str | None:
        """Why another decoder may number the frames differently, or None where none should."""
        packets = self._packets
        if self.is_prepared:
            return None
        if self._numbering.why is not None:
            return self._numbering.why
        if self.container_format not in KNOWN_EVERYWHERE:
            return f"in a container whose times decoders read differently ({self.container_format})"
        if packets.fragmented:
            return "a fragmented MP4 file"
        if packets.hidden:
            return "frames hidden by an edit list"
        if packets.opens_groups:
            return "open groups of pictures"
        if packets.false_keys:
            return "frames that are called key frames and need others"
        if orientation(self.first).mirrored:
            return "mirrored by metadata"
        return None

    @property
    def key_frames(self) -> list[int]:
        """Numbers of the shown frames at which a seek can start decoding."""
        numbers = ((bisect.bisect_left(self._times, key.shown), key) for key in self._keys)
        return [n for n, key in numbers if self._times[n : n + 1] == [key.shown]]

    def packets_around(self, first: int, last: int) -> PacketRange | None:
        """What has to be decoded for some frames, where groups of pictures are closed.

        Args:
            first: number of the first one.
            last: of the last one.

        Returns:
            From a key frame to the next one behind them; None where that is all of the video, or
            it can't be told. The packets are to be taken before anything else is read.
        """
        key = self._key_before(self._times[first])
        after = bisect.bisect_right(self._keys, self._times[last], key=lambda key: key.shown)
        behind = self._keys[after] if after < len(self._keys) else None
        if key is None or (behind is None and key.number == 0):
            return None
        try:
            with translated():
                packets, landed = self._seeker.packets_from(key)
        except AstrayError:
            return None
        begin = bisect.bisect_left(self._times, landed.shown)
        if behind is None:
            packets = (packet for packet in packets if packet.size)
            return PacketRange(packets, None, begin, len(self._times) - begin)
        end = bisect.bisect_left(self._times, behind.shown)
        return PacketRange(packets, behind.number - landed.number, begin, end - begin)

    @property
    def reordered(self) -> bool:
        """Whether frames are stored in another order than they are shown in (B-frames)."""
        return self._reordered

    def close(self) -> None:
        self._container.close()

    def decode_all(self) -> Iterator[VideoFrame]:
        """Every frame in order as FFmpeg gives it: neither converted nor rotated.

        Yields:
            Frames; the ``i``-th is the one that ``read([i])`` returns.

        Raises:
            DecodeError: a frame can't be decoded or is damaged, when its turn comes.
        """
        number = skipped = 0
        for frame in decode_from_start(self._content):
            if number == self.frame_count:
                break
            if not self._numbering.by_count and frame.pts != self._times[number]:
                if number == 0 and frame.pts is not None and frame.pts < self._times[0]:
                    skipped += 1
                    continue
                if not self._renumber() or skipped:
                    break
            if frame.is_corrupt:
                break
            yield frame
            number += 1
        if number < self.frame_count:
            raise self._undecodable(number)

    def convert(self, frame: VideoFrame) -> Frames:
        """A frame of :meth:`decode_all` to what :meth:`read` makes of it: upright, [H, W, 3]."""
        with translated():
            return self._converter(frame)

    def read(self, ids: Sequence[int]) -> Frames:
        numbers = check_ids(ids, self.frame_count)
        try:
            clip = self._read(numbers)
        except DisorderError:
            if not self._renumber():
                raise DecodeError(
                    "its frames come out in another order than their times have"
                ) from None
            clip = self._read(numbers)
        if missing := clip.missing():
            raise self._undecodable(bisect.bisect_left(self._times, missing[0]))
        return clip.frames()

    def _undecodable(self, number: int) -> DecodeError:
        return DecodeError(f"frame {number} of {self.frame_count} can't be decoded")

    def _renumber(self) -> bool:
        """Numbers frames by the order in which they come out, where all do; whether it did.

        Only where the times are those of decoding, and every clip among frames in another order
        notices. Where times know another order, a disorder is damage.
        """
        if self._reordered or self._numbering.by_count:
            return False
        found = settle_late(self._content, self.frame_count)
        if found is None:
            return False
        self._number_by(found)
        return True

    def _read(self, numbers: list[int]) -> _Clip:
        times = [self._times[number] for number in numbers]
        clip = _Clip(times, self._converter)
        with translated():
            if self._keys:
                try:
                    self._read_seeking(clip)
                except AstrayError:
                    clip = _Clip(times, self._converter)
            if clip.missing():
                # A seek can land where decoding does not recover; from the start it may.
                self._read_from_start(clip)
        return clip

    def _read_seeking(self, clip: _Clip) -> None:
        """Puts those frames that can be decoded from the key frames before them."""
        wanted = clip.missing()
        # Where times don't bear each other out, all frames are decoded, and some behind the last
        # one, to see that they come in the order of their times.
        sure = self._bear_each_other_out(wanted)
        behind = 0 if sure else self._stream.codec_context.reorder_depth
        only = frozenset(wanted) if sure else None
        position = 0
        while position < len(wanted):
            key = self._key_before(wanted[position])
            if key is None:
                return
            for frame in self._seeker.frames_from(key, only):
                time = frame.pts or 0
                while position < len(wanted) and wanted[position] < time:
                    position += 1  # passed without being shown: left to the caller
                if position < len(wanted):
                    if wanted[position] != time:
                        continue
                    clip.put(time, frame)
                    position += 1
                if position < len(wanted):
                    if not behind and self._worth_a_seek(time, wanted[position]):
                        break
                elif behind:
                    behind -= 1
                else:
                    return
            else:
                return

    def _read_from_start(self, clip: _Clip) -> None:
        """As :meth:`_read_seeking`, but without trusting any seek."""
        by_count, wanted = self._numbering.by_count, clip.missing()
        sure = by_count or self._bear_each_other_out(wanted)
        behind = 0 if sure else self._stream.codec_context.reorder_depth
        left = set(wanted)
        last: int | None = None
        for number, frame in enumerate(decode_from_start(self._content)):
            time = number if by_count else frame.pts
            if time is None or (last is not None and time <= last):
                raise DisorderError
            if not sure and last is not None and self._is_passed(last, time):
                behind = DEEPEST  # it may still come
            last = time
            if time in left:
                left.discard(time)
                clip.put(time, frame)
            if not left:
                if not behind:
                    return
                behind -= 1

    def _bear_each_other_out(self, wanted: list[int]) -> bool:
        """Whether the times around these are those of reordered frames at a constant rate.

        A wrong one among them would leave a gap, or make one too small.
        """
        if not self._reordered:
            return False
        if self._unusual is None:
            self._unusual = unusual_gaps(self._times, float(self._stream.time_base or 0))
        if not self._unusual:
            return True
        key = self._key_before(wanted[0])
        begin = bisect.bisect_left(self._times, wanted[0] if key is None else key.shown) - DEEPEST
        end = bisect.bisect_left(self._times, wanted[-1]) + DEEPEST
        place = bisect.bisect_left(self._unusual, begin)
        return place == len(self._unusual) or self._unusual[place] > end

    def _is_passed(self, before: int, time: int) -> bool:
        """Whether a frame is shown between two times."""
        place = bisect.bisect_right(self._times, before)
        return place < len(self._times) and self._times[place] < time

    def _key_before(self, time: int) -> Key | None:
        """The last key frame shown at or before ``time``.

        Frames of an open group that are shown before their key frame are thereby decoded from
        the key frame before it, which they also refer to.
        """
        index = bisect.bisect_right(self._keys, time, key=lambda key: key.shown)
        return self._keys[index - 1] if index else None

    def _worth_a_seek(self, now: int, time: int) -> bool:
        key = self._key_before(time)
        if key is None or key.shown <= now:
            return False
        passed = bisect.bisect_left(self._times, key.shown) - bisect.bisect_left(self._times, now)
        return passed > _SEEK_AHEAD


class PacketRange(NamedTuple):
    """A part of a video's packets.

    Attributes:
        packets: from a key frame on.
        packet_count: how many of them it is; None: all.
        first: number of its first frame.
        frame_count: of it.
    """

    packets: Iterator[Packet[VideoStream]]
    packet_count: int | None
    first: int
    frame_count: int


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
        if frame.is_corrupt:  # counts as one that can't be decoded
            return
        picture = self._converter(frame)
        if self._frames is None:
            self._frames = np.empty((self._count, *picture.shape), dtype=np.uint8)
        elif self._frames.shape[1:] != picture.shape:
            raise DecodeError("its frames are turned by different angles")
        for place in self._places.pop(time):
            self._frames[place] = picture  # by one number: a copy of memory

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
        # By the angle, which costs a twentieth of a look at the matrix.
        self._orientations: dict[int, Orientation] = {}

    def __call__(self, frame: VideoFrame) -> Frames:
        rgb = self._reformatter.reformat(
            frame, self._width, self._height, format="rgb24", interpolation="BILINEAR", threads=1
        )
        turned = self._orientations.get(frame.rotation)
        if turned is None:
            turned = self._orientations[frame.rotation] = orientation(frame)
        return turned.apply(np.asarray(rgb.to_ndarray(), dtype=np.uint8))
