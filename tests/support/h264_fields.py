"""An H.264 stream of field pairs, which no encoder at hand writes: raw samples (I_PCM), by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tests.support.videos import numbered_frame

_WIDTH, _HEIGHT = 112, 96  # whole macroblocks in each field


class _Bits:
    """Writes bits, most significant first."""

    def __init__(self) -> None:
        self._bits: list[str] = []

    def u(self, value: int, count: int) -> None:
        """``count`` bits."""
        self._bits.append(f"{value:0{count}b}")

    def ue(self, *values: int) -> None:
        """Exponential Golomb codes."""
        for value in values:
            code = f"{value + 1:b}"
            self._bits.append("0" * (len(code) - 1) + code)

    def align(self) -> None:
        """Zeros to the next byte."""
        self._bits.append("0" * (-sum(map(len, self._bits)) % 8))

    def samples(self, values: bytes) -> None:
        self._bits.append("".join(f"{value:08b}" for value in values))

    def unit(self, kind: int) -> bytes:
        """The NAL unit with a start code; kind: its first byte."""
        bits = "".join(self._bits) + "1"
        bits += "0" * (-len(bits) % 8)
        content = int(bits, 2).to_bytes(len(bits) // 8, "big")
        escaped, zeros = bytearray(), 0
        for byte in content:
            if zeros >= 2 and byte <= 3:
                escaped.append(3)
                zeros = 0
            escaped.append(byte)
            zeros = 0 if byte else zeros + 1
        return b"\x00\x00\x00\x01" + bytes([kind]) + bytes(escaped)


def write_fields(path: Path, frames: int) -> Path:
    """Numbered frames, each as a top and a bottom field: two access units."""
    content = _parameters()
    for number in range(frames):
        picture = numbered_frame(number, _WIDTH, _HEIGHT)
        luma = np.clip(picture.mean(axis=-1), 16, 235).astype(np.uint8)
        for bottom in (0, 1):
            content += _field(luma[bottom::2], number, bottom)
    path.write_bytes(content)
    return path


def _parameters() -> bytes:
    """The sequence's and the picture's parameter sets."""
    sps = _Bits()
    sps.u(77, 8)  # main profile
    sps.u(0, 8)
    sps.u(30, 8)
    # id; 4 bits of frame numbers; order of output is that of decoding (type 2); 1 reference frame
    sps.ue(0, 0, 2, 1)
    sps.u(0, 1)
    sps.ue(_WIDTH // 16 - 1, _HEIGHT // 32 - 1)
    sps.u(0b0_0_1_0_0, 5)  # fields allowed, none within frames; 8x8 inference; no cropping, no VUI
    pps = _Bits()
    pps.ue(0, 0)
    pps.u(0, 2)  # CAVLC
    pps.ue(0, 0, 0)
    pps.u(0, 3)
    pps.ue(0, 0, 0)  # quantisers and offset, 0 as signed codes too
    pps.u(0, 3)
    return sps.unit(0x67) + pps.unit(0x68)


def _field(luma: NDArray[np.uint8], number: int, bottom: int) -> bytes:
    """A slice with all of a field; the first one of the stream is an IDR picture."""
    idr = number == 0 and not bottom
    bits = _Bits()
    bits.ue(0, 7, 0)  # first macroblock, I, parameter set
    bits.u(number % 16, 4)
    bits.u(1, 1)  # a field
    bits.u(bottom, 1)
    if idr:
        bits.ue(0)
        bits.u(0, 2)
    else:
        bits.u(0, 1)  # references slide
    bits.ue(0)  # quantiser
    height, width = luma.shape
    for top in range(0, height, 16):
        for left in range(0, width, 16):
            bits.ue(25)  # I_PCM
            bits.align()
            bits.samples(luma[top : top + 16, left : left + 16].tobytes() + bytes([128]) * 128)
    return bits.unit(0x65 if idr else 0x41)
