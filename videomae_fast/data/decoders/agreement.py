"""Whether another decoder can be trusted with a file's frame numbers."""

from __future__ import annotations

from pathlib import Path

from videomae_fast.data.decoders.pyav import PyAVReader
from videomae_fast.data.errors import DecodeError


def check_numbers(path: Path, decoder: str, count: int) -> None:
    """Compares a file's frames by number with what PyAV says, without decoding them.

    decoder: the other one's name; count: how many frames it finds.

    Raises :class:`DecodeError` where it may give other frames, or the file is none that PyAV reads.
    """
    with PyAVReader(path) as video:
        why = video.why_only_here()
        if why is None and video.frame_count != count:
            why = f"{count} frames instead of {video.frame_count}"
    if why is not None:
        raise DecodeError(f"{decoder} can't be trusted with it: {why} (--decoder pyav reads it)")
