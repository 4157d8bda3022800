"""What a packet's own first bytes say: whether it holds a picture, and whether it starts a group.

Containers say both as well, and are wrong often enough: recordings flag every I picture as a key
frame though later ones refer behind it, and a last packet may hold a comment.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Final

Says = Callable[[memoryview], bool]
"""What a packet says, from its bytes."""

_START_CODE: Final = re.compile(rb"\x00\x00\x01(?=.)", re.S)
_VOP: Final = re.compile(rb"\x00\x00\x01\xb6(?=.)", re.S)  # MPEG-4 part 2
_PICTURE: Final = re.compile(rb"\x00\x00\x01\x00(?=..)", re.S)  # MPEG-1 and -2

_REMEMBERED: Final = 64  # parameters; files of one encoder have the same
_SEI: Final = 6
_SPS: Final = 7
_HIGH_PROFILES: Final = (100, 110, 122, 244, 44, 83, 86, 118, 128, 138, 139, 134, 135)
_IDR: Final = 5
# First bytes of units that are a part of a picture
_H264_PICTURES: Final = frozenset(byte for byte in range(256) if 1 <= byte & 31 <= _IDR)
_HEVC_PICTURES: Final = frozenset(byte for byte in range(256) if byte >> 1 & 63 < 32)
_RECOVERY_POINT: Final = 6
_HEVC_STARTS: Final = frozenset(byte for byte in range(256) if 16 <= byte >> 1 & 63 < 24)
_VP9_SUPERFRAME: Final = 0b110


def shows(codec: str, extradata: bytes | None) -> Says | None:
    """Whether packets hold a picture to be shown, for codecs where they need not.

    Args:
        codec: FFmpeg's name.
        extradata: of the stream.

    Returns:
        A function from a packet's bytes to whether it does; None for other codecs.
    """
    if codec in ("h264", "hevc"):
        size = _length_size(codec, extradata)
        return _has_unit(_H264_PICTURES if codec == "h264" else _HEVC_PICTURES, size)
    return {"vp8": _vp8_shows, "vp9": _vp9_shows, "mpeg4": _has(_VOP)}.get(codec) or (
        _has(_PICTURE) if codec in ("mpeg1video", "mpeg2video") else None
    )


def starts(codec: str, extradata: bytes | None) -> Says | None:
    """Whether decoding can start at packets, for codecs whose packets say so.

    H.264: an IDR picture or a recovery point, since other I pictures do not keep later ones from
    referring to what was before them.

    Args:
        codec: FFmpeg's name.
        extradata: of the stream.

    Returns:
        A function from a packet's bytes to whether it can; None for other codecs.
    """
    if codec in ("h264", "hevc"):
        size = _length_size(codec, extradata)
        if codec == "h264":
            return lambda data: any(_h264_starts(unit) for unit in _units(data, size))
        return _has_unit(_HEVC_STARTS, size)
    if codec == "mpeg4":
        return lambda data: (found := _VOP.search(data)) is not None and not data[found.end()] >> 6
    if codec in ("mpeg1video", "mpeg2video"):
        return _mpeg2_starts
    return {"vp8": _vp8_starts, "vp9": _vp9_starts}.get(codec)


@lru_cache(_REMEMBERED)
def frames_only(extradata: bytes | None) -> bool:
    """Whether an H.264 stream's parameters rule out fields; False where they can't be read."""
    if extradata is None:
        return False
    size = _length_size("h264", extradata)
    if size:  # avcC: the first of its sequence parameter sets, with 2 bytes of length
        count, units = extradata[5] & 31, [memoryview(extradata)[8:]]
        if count != 1:
            return False
    else:
        units = [u for u in _units(memoryview(extradata), 0) if u[0] & 31 == _SPS]
    return bool(units) and all(_sps_frames_only(unit[1:]) for unit in units)


class _Bits:
    """Reads a NAL unit's bits; IndexError behind its end."""

    def __init__(self, content: bytes) -> None:
        content = content.replace(b"\0\0\3", b"\0\0")
        # A leading 1 keeps the zeros behind it
        self._bits, self._place = bin(int.from_bytes(b"\1" + content, "big"))[3:], 0

    def u(self, count: int) -> int:
        """``count`` bits, at least one."""
        part = self._bits[self._place : self._place + count]
        if len(part) < count:
            raise IndexError("the end of the unit")
        self._place += count
        return int(part, 2)

    def ue(self) -> int:
        """An exponential Golomb code."""
        zeros = self._bits.index("1", self._place) - self._place
        self._place += zeros
        return self.u(zeros + 1) - 1


def _sps_frames_only(content: memoryview) -> bool:
    """frame_mbs_only_flag of a sequence parameter set (H.264, 7.3.2.1.1)."""
    try:
        # It is within the first bytes, unless scaling lists are in front of it.
        return _frames_only(_Bits(bytes(content[:32])))
    except (IndexError, ValueError):
        pass
    try:
        return _frames_only(_Bits(bytes(content[:1024])))
    except (IndexError, ValueError):
        return False


def _frames_only(bits: _Bits) -> bool:
    profile = bits.u(24) >> 16
    bits.ue()
    if profile in _HIGH_PROFILES:
        chroma = bits.ue()
        if chroma == 3:
            bits.u(1)
        bits.ue(), bits.ue(), bits.u(1)
        if bits.u(1):
            for number in range(12 if chroma == 3 else 8):
                _skip_scaling_list(bits, 16 if number < 6 else 64)
    bits.ue()
    order = bits.ue()
    if order == 0:
        bits.ue()
    elif order == 1:
        bits.u(1), bits.ue(), bits.ue()
        for _ in range(bits.ue()):
            bits.ue()
    bits.ue(), bits.u(1), bits.ue(), bits.ue()
    return bits.u(1) == 1


def _skip_scaling_list(bits: _Bits, length: int) -> None:
    if not bits.u(1):
        return
    scale = 8
    for _ in range(length):
        if scale:
            code = bits.ue()
            step = (code + 1) // 2 if code % 2 else -(code // 2)
            scale = (scale + step) % 256


def _units(data: memoryview, length_size: int) -> Iterator[memoryview]:
    """NAL units that are not empty; length_size: bytes of their lengths, 0 for start codes."""
    if not length_size:
        for found in _START_CODE.finditer(data):
            yield data[found.end() :]
        return
    place = 0
    while place + length_size < len(data):
        length = int.from_bytes(data[place : place + length_size], "big")
        place += length_size
        if length:
            yield data[place : place + length]
        place += length


def _length_size(codec: str, extradata: bytes | None) -> int:
    """From avcC or hvcC, which MP4 and Matroska store; 0 where units have start codes."""
    place = 4 if codec == "h264" else 21
    if extradata is None or len(extradata) <= place or extradata[0] != 1:
        return 0
    return (extradata[place] & 3) + 1


def _h264_starts(unit: memoryview) -> bool:
    kind = unit[0] & 31
    return kind == _IDR or (kind == _SEI and _recovers(bytes(unit[1:256])))


def _recovers(messages: bytes) -> bool:
    """Whether one of these SEI messages is a recovery point."""
    messages = messages.replace(b"\0\0\3", b"\0\0")
    place = 0
    while place + 1 < len(messages):
        values = []
        for _ in range(2):  # type, size
            value = 0
            while place < len(messages) and messages[place] == 255:
                value, place = value + 255, place + 1
            if place == len(messages):
                return False
            values.append(value + messages[place])
            place += 1
        if values[0] == _RECOVERY_POINT:
            return True
        place += values[1]
    return False


def _has_unit(kinds: frozenset[int], length_size: int) -> Says:
    """Whether there is a NAL unit with one of these first bytes; as :func:`_units`, but faster."""
    if not length_size:
        return _has(_START_OF[kinds])

    def says(data: memoryview) -> bool:
        place, end = length_size, len(data)
        while place < end:
            length = int.from_bytes(data[place - length_size : place], "big")
            if length and data[place] in kinds:
                return True
            place += length + length_size
        return False

    return says


def _start_of(kinds: frozenset[int]) -> re.Pattern[bytes]:
    """A start code and the first byte of a NAL unit, one of these."""
    return re.compile(b"\0\0\1[%s]" % b"".join(b"\\x%02x" % kind for kind in sorted(kinds)))


_START_OF: Final = {
    kinds: _start_of(kinds) for kinds in (_H264_PICTURES, _HEVC_PICTURES, _HEVC_STARTS)
}


def _has(pattern: re.Pattern[bytes]) -> Says:
    return lambda data: pattern.search(data) is not None


def _mpeg2_starts(data: memoryview) -> bool:
    found = _PICTURE.search(data)
    return found is not None and data[found.end() + 1] >> 3 & 7 == 1


def _vp8_shows(data: memoryview) -> bool:
    return bool(data[0] >> 4 & 1)


def _vp8_starts(data: memoryview) -> bool:
    return not data[0] & 1


def _vp9_flags(first: int) -> int:
    """Of the first byte: show_existing_frame, frame_type (0: key), show_frame; 3 bits."""
    return first >> (0 if first >> 4 & 3 == 3 else 1) & 7


_VP9_SHOWS: Final = [bool(_vp9_flags(first) & 0b101) for first in range(256)]


def _vp9_shows(data: memoryview) -> bool:
    # A superframe holds hidden frames and one to be shown.
    return _VP9_SHOWS[data[0]] or data[-1] >> 5 == _VP9_SUPERFRAME


def _vp9_starts(data: memoryview) -> bool:
    return not _vp9_flags(data[0]) & 0b110
