"""A video stream's packets, and whether what the container says of them can be relied on."""

from __future__ import annotations

import operator
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple
from zlib import crc32

from videomae_fast.data.decoders.bitstream import frames_only, shows, starts
from videomae_fast.data.decoders.opening import ENCRYPTED, KNOWN_EVERYWHERE, demux, is_encrypted
from videomae_fast.data.errors import DecodeError

if TYPE_CHECKING:
    from av import VideoStream
    from av.container import InputContainer
    from av.packet import Packet

# Containers in which a packet is known by its place in the file.
_BY_PLACE: Final = (*KNOWN_EVERYWHERE, "avi", "flv")
# Containers without the sizes of their packets: an end that is cut off looks like any other.
_UNSIZED: Final = ("mpegts", "mpeg", "mpegvideo", "m4v", "h264", "hevc")
# Containers that store the times at which packets are decoded, but not when they are shown.
_DECODING_TIMES: Final = ("avi", "asf", "rm")
# Codecs, not all intra-only, with a picture in each packet but for what `shows` can tell.
_ONE_EACH: Final = frozenset(
    {"av1", "ffv1", "flv1", "h263", "h264", "hevc", "mpeg1video", "mpeg2video", "mpeg4", "png"}
    | {"vp8", "vp9"}
)
# Pictures of these that are not coded, which give no frame, are a few bytes.
_LEAVES_OUT: Final = frozenset({"mpeg4", "h263", "flv1"})
_FEW_BYTES: Final = 16
_HEAD: Final = 64  # bytes that packets are compared by


DEEPEST: Final = 16
"""Frames by which any codec reorders."""


class Key(NamedTuple):
    """A packet at which decoding can start.

    Attributes:
        shown: its presentation time, in units of the stream's time base.
        decoded: its decoding time.
        number: of the packet, from 0.
    """

    shown: int
    decoded: int
    number: int


@dataclass
class Packets:
    """The packets of a stream, numbered from 0 in the order of decoding.

    Attributes:
        by_place: whether marks are places in the file; else they are made of a packet's bytes.
        marks: what a packet is known by.
        times: when it is shown, None where the container does not say; empty for a file whose
            header was believed.
        keys: where decoding can start, ascending.
        shown: times of the packets that give a frame, in the order of decoding.
        doubt: why its times can't be relied on, or None.
        late_start: whether frames are shown before the first key frame.
        open_end: whether the end may be cut off unnoticed.
        hidden: packets that an edit list hides.
        false_keys: packets that the container calls key frames, and that say themselves that they
            are none.
        fragmented: an MP4 file that is a sequence of fragments.
        reordered: whether frames are decoded in another order than they are shown in (B-frames).
        jumps_back: whether a key frame is shown before a frame that is decoded before it.
    """

    by_place: bool
    marks: list[int] = field(default_factory=list)
    times: list[int | None] = field(default_factory=list)
    keys: list[Key] = field(default_factory=list)
    shown: list[int] = field(default_factory=list)
    doubt: str | None = None
    late_start: bool = False
    open_end: bool = False
    hidden: int = 0
    false_keys: int = 0
    fragmented: bool = False
    reordered: bool = False
    jumps_back: bool = False

    def __post_init__(self) -> None:
        self._numbers: dict[int, list[Key]] | None = None

    def mark(self, packet: Packet[VideoStream]) -> int:
        """What the packet is known by."""
        if self.by_place:
            return packet.pos or -1
        return packet.size << 32 | crc32(memoryview(packet)[:_HEAD])

    def key(self, packet: Packet[VideoStream]) -> Key | None:
        """The key that a packet is.

        Args:
            packet: of this stream.

        Returns:
            The key; None where the packet is none, or one of several alike.
        """
        if self._numbers is None:
            self._numbers = {}
            for key in self.keys:
                self._numbers.setdefault(self.marks[key.number], []).append(key)
        found = self._numbers.get(self.mark(packet), [])
        if len(found) > 1:
            found = [key for key in found if key.shown == packet.pts]
        return found[0] if len(found) == 1 else None

    @property
    def opens_groups(self) -> bool:
        """Whether frames that are decoded after a key frame are shown before it."""
        places = [key.number for key in self.keys] + [len(self.times)]
        return any(
            time is not None and time < key.shown
            for key, end in zip(self.keys, places[1:], strict=True)
            for time in self.times[key.number : end]
        )


def read_packets(container: InputContainer, stream: VideoStream) -> Packets:
    """Reads all packets, without decoding them.

    Args:
        container: open.
        stream: its video.

    Returns:
        What the packets say.

    Raises:
        DecodeError: the file is cut off or encrypted.
    """
    context, name = stream.codec_context, container.format.name
    codec, extradata = context.codec.canonical_name, context.extradata
    by_place = name in _BY_PLACE
    found = Packets(by_place, open_end=name in _UNSIZED)
    marks, times, keys = found.marks, found.times, found.keys
    decoded: list[int | None] = []
    without: list[int] = []  # packets of which nothing is shown
    holds_picture, starts_group = shows(codec, extradata), starts(codec, extradata)
    # Bytes are looked at only where a packet without a picture is to be expected.
    look = holds_picture if found.open_end or codec in ("vp8", "vp9") else None
    may_be_tiny, may_be_corrupt = codec in _LEAVES_OUT, name == "mpegts"
    # Most files are plain, where a packet costs as little as it can: it may be one of thousands.
    plain = by_place and look is None and not may_be_tiny and not may_be_corrupt
    indexed = len(stream.index_entries) if "mov" in name else 0
    empty, tiny, corrupt = 0, False, False
    last: Packet[VideoStream] | None = None
    for packet in demux(container, stream):
        pts, dts, size = packet.pts, packet.dts, packet.size
        if not size:
            empty += dts is not None  # a sample that is empty; the last one flushes
            continue
        times.append(pts)
        decoded.append(dts)
        if plain:
            marks.append(packet.pos or -1)
        else:
            content = memoryview(packet)
            marks.append((packet.pos or -1) if by_place else size << 32 | crc32(content[:_HEAD]))
            if look is not None and not look(content):
                without.append(len(times) - 1)
            if may_be_tiny and size < _FEW_BYTES:
                tiny = True
            if may_be_corrupt and packet.is_corrupt:
                corrupt = True
        if packet.is_keyframe:
            if is_encrypted(packet):
                raise DecodeError(ENCRYPTED)
            if starts_group is not None and not starts_group(memoryview(packet)):
                found.false_keys += 1
            elif pts is not None:
                keys.append(Key(pts, pts if dts is None else dts, len(times) - 1))
        if packet.is_discard:
            found.hidden += 1
            without.append(len(times) - 1)
        last = packet
    if len(marks) + empty < indexed:
        raise DecodeError(f"truncated: {len(marks) + empty} of {indexed} frames are in the file")
    found.fragmented = "mov" in name and not stream.frames
    shown: list[int | None] = times
    if without:
        left_out = set(without)
        shown = [time for number, time in enumerate(times) if number not in left_out]
    found.shown = [time for time in shown if time is not None]
    ordered = sorted(found.shown)
    found.reordered = found.shown != ordered
    found.jumps_back = found.reordered and _jumps_back(times, keys)
    found.late_start = not keys or keys[0].number > 0 or ordered[:1] < [keys[0].shown]
    if len(found.shown) < len(shown):
        found.doubt = "packets without presentation times"
    elif corrupt or (last is not None and last.is_corrupt):
        found.doubt = "packets of which parts are missing"
    elif last is not None and holds_picture is not None and not holds_picture(memoryview(last)):
        found.doubt = "a last packet without a picture"
    # Program streams store few times; FFmpeg makes the others up, now and then a frame too late.
    elif name != "mpeg" and _goes_back(decoded):
        found.doubt = "decoding times that go back (several recordings in one stream?)"
    else:
        found.doubt = _doubt_of_codec(stream, tiny) or _doubt_of_times(found, ordered, stream, name)
    return found


def _goes_back(decoded: list[int | None]) -> bool:
    """Whether one of these times is before an earlier one of them; None: not known."""
    try:
        return decoded != sorted(decoded)  # type: ignore[type-var]
    except TypeError:  # some are None
        known = [time for time in decoded if time is not None]
        return known != sorted(known)


def _doubt_of_codec(stream: VideoStream, tiny: bool) -> str | None:
    """Why packets of this stream need not give one frame each, or None."""
    context = stream.codec_context
    codec = context.codec.canonical_name
    if codec not in _ONE_EACH and not context.codec.intra_only:
        return f"a codec whose packets need not hold one picture each ({codec})"
    if tiny and codec in _LEAVES_OUT:
        return f"packets of {codec} without a coded picture"
    if codec == "h264" and not frames_only(context.extradata):
        return "H.264 that may be interlaced, with two packets to a frame"
    return None


def _doubt_of_times(
    packets: Packets, ordered: list[int], stream: VideoStream, container: str
) -> str | None:
    """Why the presentation times need not be in the order of the frames, or None.

    ordered: those of the packets, ascending.
    """
    shown, context = packets.shown, stream.codec_context
    if container in _DECODING_TIMES and (packets.reordered or context.has_b_frames):
        return f"{container.upper()} stores no presentation times, and frames are reordered"
    if packets.reordered and not context.codec.reorder:
        return "presentation times in another order than the frames can have"
    if len(set(shown)) < len(shown):
        return "several frames with one presentation time"
    if not packets.reordered:
        return None
    near = all(map(operator.le, shown, ordered[DEEPEST:]))
    if not near or not all(map(operator.ge, shown[DEEPEST:], ordered)):
        return "presentation times further from the order of decoding than any codec reorders"
    if packets.jumps_back:
        return "key frames that are shown before frames in front of them"
    return None


def _jumps_back(times: list[int | None], keys: Iterable[Key]) -> bool:
    """Whether a key frame is shown before a frame that is decoded before it."""
    latest, begin = None, 0
    for key in keys:
        part = [time for time in times[begin : key.number] if time is not None]
        if part:
            latest = max(part) if latest is None else max(latest, *part)
        if latest is not None and key.shown <= latest:
            return True
        begin = key.number
    return False
