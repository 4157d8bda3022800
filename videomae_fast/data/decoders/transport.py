"""What the packets of an MPEG transport stream say that FFmpeg does not tell."""

from __future__ import annotations

from typing import Final

from videomae_fast.data.decoders.content import Content, opened, size_of

_PACKETS: Final = 4096  # looked at
_SIZES: Final = {188: 0, 192: 4}  # bytes of a packet: those in front of its first one, 0x47
_SYNC: Final = 0x47


def is_scrambled(video: Content) -> bool:
    """Whether this is a transport stream, most of whose packets are scrambled."""
    with opened(video) as file:
        content = file.read(_PACKETS * max(_SIZES))
    for size, first in _SIZES.items():
        headers = [content[at : at + 4] for at in range(first, len(content) - 3, size)]
        if len(headers) > 2 and all(header[0] == _SYNC for header in headers):
            return sum(header[3] >> 6 != 0 for header in headers) * 2 > len(headers)
    return False


def ends_whole(video: Content, stream: int) -> bool:
    """Whether the last picture is certainly whole: its last packet is filled up.

    Args:
        video: a transport stream.
        stream: number (PID) of the video's packets.

    Returns:
        False also where that can't be told.
    """
    bytes_ = size_of(video)
    for size, first in _SIZES.items():
        if bytes_ % size:
            continue
        with opened(video) as file:
            file.seek(max(0, bytes_ - size * 64))
            content = file.read()
        for at in range(len(content) - size + first, -1, -size):
            packet = content[at : at + 188]
            if packet[0] != _SYNC:
                break
            if int.from_bytes(packet[1:3], "big") & 0x1FFF == stream:
                return _is_filled_up(packet)
    return False


def _is_filled_up(packet: bytes) -> bool:
    """Whether a packet's adaptation field is there, or longer, for no other reason."""
    if not packet[3] & 0x20:
        return False
    length, flags = packet[4], packet[5] if packet[4] else 0
    if not flags & 0x1F:
        return True
    if flags & 3:  # private data or an extension: their lengths are not looked at
        return False
    return length > 1 + 6 * (flags >> 4 & 1) + 6 * (flags >> 3 & 1) + (flags >> 2 & 1)
