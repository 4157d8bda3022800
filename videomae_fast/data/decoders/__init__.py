"""Decoders behind one contract, :class:`VideoReader`; chosen by name and probed at run time.

The libraries are imported when a decoder is asked for, not with the package. All give the same
frames, byte for byte at 8 bits per channel; above that they filter chroma differently (about 3
grey levels in the mean). Beyond plain MP4, MKV and WebM only PyAV is right: decord and torchcodec
0.13 miscount frames that an edit list hides, and decord is wrong in open groups of pictures. The
other decoders refuse the files of such kinds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from videomae_fast.data.decoders import decord, pyav, torchcodec
from videomae_fast.data.decoders.base import Frames, VideoReader
from videomae_fast.data.decoders.content import Video, VideoBytes
from videomae_fast.data.decoders.folder import FolderReader
from videomae_fast.errors import BackendUnavailableError

__all__ = [
    "DECODERS",
    "Decoder",
    "FolderReader",
    "Frames",
    "Video",
    "VideoBytes",
    "VideoReader",
    "find_decoder",
    "open_video",
]


@dataclass(frozen=True)
class Decoder:
    """A way to read video files.

    Attributes:
        name: by which it is asked for.
        open: path, or what has none, to reader; raises
            :class:`~videomae_fast.data.errors.DecodeError`.
        why_not: why it can't be used here, or None.
    """

    name: str
    open: Callable[[Video], VideoReader]
    why_not: Callable[[], str | None]


DECODERS: Final[dict[str, Decoder]] = {
    decoder.name: decoder
    for decoder in (
        Decoder("pyav", pyav.PyAVReader, pyav.why_not),
        Decoder("decord", decord.DecordReader, decord.why_not),
        Decoder("torchcodec", torchcodec.TorchCodecReader, torchcodec.why_not),
    )
}
"""What can decode videos, by name; ``why_not()`` of each says why it can't be used here."""


def find_decoder(name: str) -> Decoder:
    """The decoder of a name.

    Args:
        name: a key of :data:`DECODERS`.

    Returns:
        The decoder, which can be used here.

    Raises:
        ValueError: no such name.
        BackendUnavailableError: it can't be used here; the message says why.
    """
    if name not in DECODERS:
        raise ValueError(f"decoder {name!r} is not one of {', '.join(DECODERS)}")
    reason = DECODERS[name].why_not()
    if reason is not None:
        raise BackendUnavailableError(f"decoder {name!r} can't be used: {reason}")
    return DECODERS[name]


def open_video(path: str | Path, decoder: str = "pyav") -> VideoReader:
    """Opens a video file, to be used in a ``with`` block.

    Args:
        path: of the file.
        decoder: a key of :data:`DECODERS`.

    Returns:
        Its reader.

    Raises:
        DecodeError: a file that can't be read; the message says why.
        ValueError: no such decoder.
        BackendUnavailableError: the decoder can't be used here.
    """
    return find_decoder(decoder).open(Path(path))
