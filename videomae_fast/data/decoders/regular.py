"""Files that say in their header when each frame is shown: those of ``videomae-fast prepare``.

Reading every packet of a file tells the frames' times for certain, and costs its whole size of
reading for a clip that needs a quarter of it. Prepared files have a constant rate and closed groups
of one length, and a comment that says so; the index must agree with the comment.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from videomae_fast.data.decoders.packets import Key, Packets

if TYPE_CHECKING:
    from av import VideoStream
    from av.container import InputContainer

_COMMENT: Final = "prepared by videomae-fast: {} frames, groups of {}"
# At most nine digits: anybody can write a comment.
_PATTERN: Final = re.compile(_COMMENT.format(r"([1-9]\d{0,8})", r"([1-9]\d{0,8})"), re.ASCII)


def comment_of(frames: int, gop: int) -> str:
    """The comment in the header of a prepared file."""
    return _COMMENT.format(frames, gop)


def regular_packets(
    container: InputContainer, stream: VideoStream
) -> tuple[list[int], Packets] | None:
    """What the header says of a prepared file, in units of the stream's time base.

    Args:
        container: open.
        stream: its video.

    Returns:
        The frames' presentation times, ascending, and the packets; None where the file was not
        prepared, or was changed since.
    """
    found = _PATTERN.fullmatch(container.metadata.get("comment", ""))
    if found is None or stream.time_base is None or not stream.average_rate:
        return None
    frames, gop = int(found[1]), int(found[2])
    step = 1 / (stream.average_rate * stream.time_base)
    entries = stream.index_entries[:]
    if len(entries) != frames or step.denominator != 1 or stream.start_time != 0:
        return None
    times = [number * int(step) for number in range(frames)]
    delay = entries[0].timestamp
    packets = Packets(by_place=True)
    for number, entry in enumerate(entries):
        time, is_key = times[number], number % gop == 0
        if entry.timestamp - delay != time or entry.is_keyframe != is_key:
            return None
        packets.marks.append(entry.pos)
        if is_key:
            packets.keys.append(Key(time, entry.timestamp, number))
    return times, packets
