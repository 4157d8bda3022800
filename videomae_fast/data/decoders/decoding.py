"""From packets to frames: from the start of a file, or from a key frame that was made sure of."""

from __future__ import annotations

import heapq
import math
from collections.abc import Generator, Iterator
from functools import cached_property
from itertools import chain, islice
from types import TracebackType
from typing import TYPE_CHECKING, Final

from videomae_fast.data.decoders.content import Content
from videomae_fast.data.decoders.opening import demux, open_stream
from videomae_fast.data.decoders.packets import Key, Packets
from videomae_fast.data.errors import DecodeError

if TYPE_CHECKING:
    from av import VideoFrame, VideoStream
    from av.container import InputContainer
    from av.packet import Packet

# Packets that a seek may land before or beside a key frame; a part of a picture comes first in MPEG
# program streams.
_TRIED: Final = 16
# Codecs whose decoders give nothing out until they have a picture that needs no other.
_KNOWS_ITS_START: Final = frozenset({"h264", "vp8", "vp9", "av1"})
_INTRA: Final = 1
# Decoders that can leave out frames which no other frame refers to (about a fifth of the time).
_LEAVES_OUT: Final = frozenset({"h264", "hevc"})


class AstrayError(Exception):
    """After a seek other packets came than those that were read there first, or damaged ones."""


class DisorderError(Exception):
    """Frames came out in another order than their times have."""


def decode(packet: Packet[VideoStream]) -> list[VideoFrame] | None:
    """The frames that a packet completes.

    Args:
        packet: of a video stream, in the file's order.

    Returns:
        The frames; None for a damaged packet, which completes none.

    Raises:
        MemoryError: there is not enough for a frame.
    """
    from av.error import FFmpegError

    try:
        return packet.decode()
    except MemoryError:
        raise
    except FFmpegError:
        return None


def decode_from_start(content: Content) -> Generator[VideoFrame]:
    """Every frame that FFmpeg gives out, in its order; damaged packets are passed over.

    Args:
        content: of a file.

    Yields:
        Frames.

    Raises:
        DecodeError: the file can't be opened or read on.
    """
    container, stream = open_stream(content)
    try:
        with translated():
            yield from _decode_all(container, stream)
    finally:
        container.close()


def _decode_all(container: InputContainer, stream: VideoStream) -> Iterator[VideoFrame]:
    for packet in demux(container, stream):
        # An empty one in mid-stream would end decoding, as the last one does.
        if packet.size or packet.dts is None:
            yield from decode(packet) or ()


class Seeker:
    """Frames of an open stream from a key frame on; each packet is compared with what was read."""

    def __init__(self, container: InputContainer, stream: VideoStream, packets: Packets) -> None:
        self._container, self._stream, self._packets = container, stream, packets
        codec = stream.codec_context.codec.canonical_name
        self._knows_its_start = codec in _KNOWS_ITS_START
        self._leaves_out = codec in _LEAVES_OUT

    @cached_property
    def _shown(self) -> frozenset[int]:
        return frozenset(self._packets.shown)

    def frames_from(self, key: Key, only: frozenset[int] | None = None) -> Iterator[VideoFrame]:
        """Frames from a key or an earlier one on, at the times that they were read with.

        Args:
            key: to begin from.
            only: times of the frames that are wanted, where others may be left out; None for
                all, of which none may be missing.

        Yields:
            Frames in the order of their times.

        Raises:
            AstrayError: no seek leads there, other packets follow, or damaged ones: what they
                leave of other frames depends on where decoding began.
            DisorderError: frames came out in another order than their times have.
        """
        from av.error import FFmpegError

        packets, landed = self._land(key)
        try:
            yield from self._decoded(self._checked(packets, landed), landed, only)
        except FFmpegError as error:  # the file can't be read on
            raise AstrayError from error

    def packets_from(self, key: Key) -> tuple[Iterator[Packet[VideoStream]], Key]:
        """Packets from a key or an earlier one on, with the times that they were read with.

        Args:
            key: to begin from.

        Returns:
            Packets in the file's order, and an empty one at the end; they raise AstrayError where
            others come than were read there first. And the key that they begin from.

        Raises:
            AstrayError: no seek leads there.
        """
        packets, landed = self._land(key)
        return self._checked(packets, landed), landed

    def _checked(
        self, packets: Iterator[Packet[VideoStream]], landed: Key
    ) -> Iterator[Packet[VideoStream]]:
        marks, times, mark = self._packets.marks, self._packets.times, self._packets.mark
        by_place, number = self._packets.by_place, landed.number - 1
        for packet in packets:
            if packet.size:
                number += 1
                if number == len(marks):
                    raise AstrayError
                if ((packet.pos or -1) if by_place else mark(packet)) != marks[number]:
                    raise AstrayError
                if times:
                    packet.pts = times[number]
            elif packet.dts is not None:
                continue
            yield packet

    def _decoded(
        self, packets: Iterator[Packet[VideoStream]], landed: Key, only: frozenset[int] | None
    ) -> Iterator[VideoFrame]:
        context, unsure = self._stream.codec_context, not self._knows_its_start
        leaves_out = self._leaves_out and only is not None
        counts = only is None and context.has_b_frames
        if not leaves_out:
            context.skip_frame = "DEFAULT"
        everything: bool | None = None
        last = -math.inf
        due: list[int] = []  # times of packets whose frames have not come out
        for packet in packets:
            if leaves_out:
                wanted = packet.pts is None or packet.pts in only  # type: ignore[operator]
                if wanted != everything:  # setting it costs more than a look
                    context.skip_frame = "DEFAULT" if wanted else "NONREF"
                    everything = wanted
            elif counts and packet.pts in self._shown and packet.pts >= landed.shown:
                heapq.heappush(due, packet.pts)
            frames = decode(packet)
            if frames is None:
                raise AstrayError
            for frame in frames:
                time = frame.pts
                if frame.is_corrupt:
                    raise AstrayError
                if time is None or time <= last:
                    raise DisorderError
                if unsure and time >= landed.shown:
                    if frame.pict_type != _INTRA and not frame.key_frame:
                        raise AstrayError  # the container says of all frames that they are key
                    unsure = False
                if due:
                    if due[0] < time:
                        raise AstrayError
                    if due[0] == time:
                        heapq.heappop(due)
                last = time
                yield frame
        if due:
            raise AstrayError

    def _land(self, key: Key) -> tuple[Iterator[Packet[VideoStream]], Key]:
        """Seeks; the packets from a key on, and which one that is."""
        # Containers differ in the time they seek by. The presentation time is the later one:
        # it lands nearest, and where it lands too late the decoding time does not. In transport
        # streams it does where frames are reordered.
        targets = (key.shown, key.decoded)
        if self._container.format.name == "mpegts":
            targets = targets[::-1]
        for target in dict.fromkeys(targets):
            if (found := self._seek(target, key)) is not None:
                return found
        raise AstrayError

    def _seek(self, target: int, key: Key) -> tuple[Iterator[Packet[VideoStream]], Key] | None:
        from av.error import FFmpegError

        try:
            self._container.seek(target, stream=self._stream, backward=True)
            packets = demux(self._container, self._stream)
            for packet in islice(packets, _TRIED):
                landed = self._packets.key(packet) if packet.size else None
                if landed is not None:
                    return (
                        None if landed.number > key.number else (chain((packet,), packets), landed)
                    )
        except FFmpegError:
            pass
        return None


class translated:
    """Turns FFmpeg's complaints about the file into DecodeError, and nothing else.

    Raises:
        DecodeError: FFmpeg complained inside.
    """

    def __enter__(self) -> None:
        pass

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None:
            return
        from av.error import FFmpegError

        if isinstance(error, FFmpegError):
            raise DecodeError(getattr(error, "strerror", None) or str(error)) from error
