"""Which frames a file has, in which order: from its packets' times, or by decoding where these lie.

Times number the frames of most files without decoding any. They are relied on where every packet is
known to give a frame and the times are in an order that frames can have; then a look at the start
and, in containers that don't know their packets' sizes, at the end settles what decodes there.
Everything else is decoded from start to end, and numbered in the order in which frames come out.
"""

from __future__ import annotations

import bisect
import operator
from collections import OrderedDict
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Final

from videomae_fast.data.decoders.content import Content, identity
from videomae_fast.data.decoders.decoding import (
    AstrayError,
    DisorderError,
    Seeker,
    decode_from_start,
)
from videomae_fast.data.decoders.opening import ENCRYPTED
from videomae_fast.data.decoders.packets import Packets
from videomae_fast.data.decoders.transport import ends_whole, is_scrambled
from videomae_fast.data.errors import DecodeError

if TYPE_CHECKING:
    from av import VideoStream

_ROUNDING: Final = 0.0006  # seconds: containers round times to milliseconds
_LOOKED_AT: Final = 16  # frames at the start
_REMEMBERED: Final = 64  # files


@dataclass(frozen=True)
class Numbering:
    """The frames of a file.

    Attributes:
        times: presentation times, ascending.
        by_count: there are no times, and these are the numbers themselves, by the order in which
            frames come out.
        why: why decoding had to tell, or None.
    """

    times: list[int]
    by_count: bool = False
    why: str | None = None


# A file that had to be decoded as a whole is remembered, for the next clip of it.
_settled: OrderedDict[tuple[str, int, int], Numbering] = OrderedDict()


def number_frames(
    content: Content, stream: VideoStream, packets: Packets, seeker: Seeker
) -> Numbering:
    """Numbers the frames of an open file whose packets were read.

    Args:
        content: of the file.
        stream: its video.
        packets: of the stream.
        seeker: of the stream.

    Returns:
        The frames, in the order in which they are shown.

    Raises:
        DecodeError: nothing of it can be decoded.
    """
    if packets.doubt is not None:
        return settle(content, packets, packets.doubt)
    times = sorted(packets.shown)
    if not times:
        raise DecodeError("no frames in the video stream")
    why = None
    depth = stream.codec_context.reorder_depth
    if packets.late_start or (depth and not packets.reordered):
        begin = _first_times(content, depth)
        rest = times[bisect.bisect_left(times, begin[0]) :] if begin else []
        if not begin or begin != rest[: _LOOKED_AT + depth]:
            return settle(content, packets, "frames at the start that come out at other times")
        if len(rest) < len(times):
            why, times = "it begins within a group of pictures", rest
    if (
        packets.open_end
        and not ends_whole(content, stream.id)
        and not _ends(times, packets, seeker)
    ):
        return settle(content, packets, "an end that can't be decoded")
    return Numbering(times, why=why)


def settle(content: Content, packets: Packets, why: str) -> Numbering:
    """Numbers the frames of a file by decoding all of it.

    Args:
        content: of the file.
        packets: of its video.
        why: for the result; in words.

    Returns:
        The frames, in the order in which they come out. A file is decoded for this once.

    Raises:
        DecodeError: nothing of it can be decoded.
    """
    name = identity(content)
    if name in _settled:
        _settled.move_to_end(name)
        return _settled[name]
    found: list[int | None] = []
    sound = 0
    for frame in decode_from_start(content):
        found.append(frame.pts)
        if not frame.is_corrupt:
            sound = len(found)
    del found[sound:]  # an end that is damaged
    if not found:
        if is_scrambled(content):
            raise DecodeError(ENCRYPTED)
        raise DecodeError("no frames in the video stream that can be decoded")
    times = [time for time in found if time is not None]
    by_time = len(times) == len(found) and ascending(times) and None not in packets.times
    numbering = Numbering(times if by_time else list(range(len(found))), not by_time, why)
    _settled[name] = numbering
    if len(_settled) > _REMEMBERED:
        _settled.popitem(last=False)
    return numbering


def settle_late(content: Content, count: int) -> Numbering | None:
    """Numbers the frames of a file that came in disorder.

    Args:
        content: of the file.
        count: frames that were announced.

    Returns:
        The frames by the order in which they come out; None where that is another number of them.
    """
    if sum(1 for _ in decode_from_start(content)) != count:
        return None
    return Numbering(list(range(count)), True, "frames that come out in another order than times")


def unusual_gaps(times: list[int], tick: float) -> list[int]:
    """Which frames are shown for another time than most.

    Args:
        times: ascending, of all frames.
        tick: of the times, in seconds.

    Returns:
        Frame numbers.
    """
    gaps = list(map(operator.sub, times[1:], times))
    if not gaps or not tick:
        return []
    rounding = 2 * max(1, round(_ROUNDING / tick))
    if max(gaps) - min(gaps) <= rounding:
        return []
    usual = sorted(gaps)[len(gaps) // 2]
    return [number for number, gap in enumerate(gaps) if abs(gap - usual) > rounding]


def ascending(times: list[int]) -> bool:
    """Whether each time is later than the one before it."""
    return all(map(operator.lt, times, times[1:]))


def _first_times(content: Content, depth: int) -> list[int]:
    frames = decode_from_start(content)
    try:
        return [-1 if f.pts is None else f.pts for f in islice(frames, _LOOKED_AT + depth)]
    finally:
        frames.close()


def _ends(times: list[int], packets: Packets, seeker: Seeker) -> bool:
    """Whether what follows the last key frame decodes to its times."""
    if not packets.keys or packets.jumps_back:
        return False
    key = packets.keys[-1]
    expected = times[bisect.bisect_left(times, key.shown) :]
    try:
        found = [frame.pts for frame in seeker.frames_from(key) if not frame.is_corrupt]
    except (AstrayError, DisorderError):
        return False
    return [time for time in found if time is not None and time >= key.shown] == expected
