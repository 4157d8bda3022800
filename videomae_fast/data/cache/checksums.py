"""A checksum of each frame, cheap enough to be looked at with every frame that is read.

A CRC of all bytes would take five times as long. Sums of 64-bit words run at the speed of memory;
the CRC of a frame's sums, one per block, makes the order of blocks count. A flipped bit always
changes it; torn, zeroed, misplaced or stale blocks do but for one chance in 2^32. Words that change
places within a block, and changes that cancel in its sum, are not seen.
"""

from __future__ import annotations

import zlib
from typing import Final

import numpy as np
import numpy.typing as npt

from videomae_fast.data.decoders import Frames

Checksums = npt.NDArray[np.uint32]

_BLOCK: Final = 4096  # bytes: a page, the least that a disk or a file system gets wrong as a whole
_WORD: Final = np.dtype("<u8")
_STORED: Final = np.dtype("<u4")


def frame_checksums(frames: Frames) -> Checksums:
    """uint8 [N, H, W, 3], contiguous, to uint32 [N]: the same on every machine."""
    flat = frames.reshape(len(frames), -1)
    blocks = flat.shape[1] // _BLOCK
    whole, rest = flat[:, : blocks * _BLOCK], flat[:, blocks * _BLOCK :]
    words = whole.view(_WORD).reshape(len(flat), blocks, _BLOCK // _WORD.itemsize)
    sums = words.sum(-1, dtype=_WORD).astype(_WORD, copy=False)
    pairs = zip(sums, rest, strict=True)
    return np.array([zlib.crc32(tail, zlib.crc32(own)) for own, tail in pairs], np.uint32)


def table_bytes(count: int) -> int:
    """Length of the table of so many frames."""
    return _STORED.itemsize * (count + 1)


def pack_table(checksums: Checksums) -> bytes:
    """The frames' checksums and the CRC-32 of all of them, little-endian."""
    content = checksums.astype(_STORED).tobytes()
    return content + zlib.crc32(content).to_bytes(_STORED.itemsize, "little")


def unpack_table(table: bytes) -> Checksums | None:
    """What :func:`pack_table` packed, or None where that is damaged."""
    content, own = table[: -_STORED.itemsize], table[-_STORED.itemsize :]
    if zlib.crc32(content) != int.from_bytes(own, "little"):
        return None
    return np.frombuffer(content, _STORED).astype(np.uint32, copy=False)
