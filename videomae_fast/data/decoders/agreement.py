"""Whether another decoder can be trusted with a file's frame numbers."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from videomae_fast.data.decoders.content import Content, identity
from videomae_fast.data.decoders.pyav import PyAVReader
from videomae_fast.data.errors import DecodeError

_REMEMBERED: Final = 4096  # files
_known: OrderedDict[tuple[str, int, int], tuple[str | None, int]] = OrderedDict()


def check_numbers(content: Content, decoder: str, count: int) -> None:
    """Compares a file's frames by number with what PyAV says.

    Args:
        content: of the file.
        decoder: the other one's name.
        count: frames that it finds.

    Raises:
        DecodeError: it may give other frames, or the file is none that PyAV reads.
    """
    why, expected = _numbers(content)
    if why is None and expected != count:
        why = f"{count} frames instead of {expected}"
    if why is not None:
        raise DecodeError(f"{decoder} can't be trusted with it: {why} (--decoder pyav reads it)")


def _numbers(content: Content) -> tuple[str | None, int]:
    """Why other decoders may number the frames differently, and how many there are; remembered for
    as long as the file stays the same."""
    name = identity(content)
    if name in _known:
        _known.move_to_end(name)
        return _known[name]
    with PyAVReader(content) as video:
        found = video.why_only_here(), video.frame_count
    _known[name] = found
    if len(_known) > _REMEMBERED:
        _known.popitem(last=False)
    return found
