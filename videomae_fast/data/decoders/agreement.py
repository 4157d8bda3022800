"""Whether another decoder can be trusted with a file's frame numbers."""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path
from typing import Final

from videomae_fast.data.decoders.pyav import PyAVReader
from videomae_fast.data.errors import DecodeError

_REMEMBERED: Final = 4096  # files


def check_numbers(path: Path, decoder: str, count: int) -> None:
    """Compares a file's frames by number with what PyAV says.

    Args:
        path: of the file.
        decoder: the other one's name.
        count: frames that it finds.

    Raises:
        DecodeError: it may give other frames, or the file is none that PyAV reads.
    """
    status = os.stat(path)
    why, expected = _numbers(path.absolute(), status.st_size, status.st_mtime_ns)
    if why is None and expected != count:
        why = f"{count} frames instead of {expected}"
    if why is not None:
        raise DecodeError(f"{decoder} can't be trusted with it: {why} (--decoder pyav reads it)")


@lru_cache(_REMEMBERED)
def _numbers(path: Path, size: int, changed: int) -> tuple[str | None, int]:
    """Why other decoders may number the frames differently, and how many there are.

    size, changed: of the file, in bytes and ns: of another one nothing is remembered.
    """
    with PyAVReader(path) as video:
        return video.why_only_here(), video.frame_count
