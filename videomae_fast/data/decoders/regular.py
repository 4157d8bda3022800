"""Files that say in their header when each frame is shown: those of ``videomae-fast prepare``.

Reading every packet of a file tells the frames' times for certain, and costs its whole size of
reading for a clip that needs a quarter of it. Prepared files have a constant rate and closed groups
of one length, and a comment that says so; the index must agree with the comment.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from av import VideoStream
    from av.container import InputContainer

_COMMENT: Final = "prepared by videomae-fast: {} frames, groups of {}"
_PATTERN: Final = re.compile(_COMMENT.format(r"(\d+)", r"(\d+)"))


def comment_of(frames: int, gop: int) -> str:
    """The comment in the header of a prepared file."""
    return _COMMENT.format(frames, gop)


def regular_times(
    container: InputContainer, stream: VideoStream
) -> tuple[list[int], list[tuple[int, int]]] | None:
    """What the header says of a prepared file, in units of the stream's time base.

    Returns the frames' presentation times, ascending, and the (presentation, decoding) times of the
    key frames; None where the file was not prepared, or was changed since.
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
    for number, entry in enumerate(entries):
        if entry.timestamp - delay != times[number] or entry.is_keyframe != (number % gop == 0):
            return None
    return times, [(time, time + delay) for time in times[::gop]]
