"""The part of a video around some frames, as a file of its own: its packets as they are."""

from __future__ import annotations

import io
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from videomae_fast.data.decoders.decoding import AstrayError, translated
from videomae_fast.data.decoders.pyav import PyAVReader

if TYPE_CHECKING:
    from av import VideoStream
    from av.packet import Packet

# An edit list would hide frames from some decoders.
_MP4: Final = {"use_editlist": "0"}


@dataclass(frozen=True)
class Excerpt:
    """A part of a video.

    Attributes:
        data: uint8 [bytes], a file.
        first: number, in the whole video, of the part's first frame.
        frame_count: of the part.
    """

    data: NDArray[np.uint8]
    first: int
    frame_count: int


def excerpt(video: PyAVReader, ids: Sequence[int]) -> Excerpt | None:
    """Copies what has to be decoded for some frames: from a key frame to the next one behind them.

    Args:
        video: open; of those of which :meth:`PyAVReader.why_only_here` says None, so that no frame
            needs another than those of its own group.
        ids: frame numbers, at least one.

    Returns:
        The part; None where that is all of the video, or its packets can't be copied.

    Raises:
        DecodeError: the file can't be read.
    """
    found = video.packets_around(min(ids), max(ids))
    if found is None:
        return None
    with suppress(AstrayError), translated():
        packets = list(islice(found.packets, found.packet_count))
        data = _file_of(packets, video)
        if data is not None:
            return Excerpt(data, found.first, found.frame_count)
    return None


def _file_of(packets: list[Packet[VideoStream]], video: PyAVReader) -> NDArray[np.uint8] | None:
    import av

    times = [packet.pts for packet in packets if packet.pts is not None]
    ordered = sorted(times)
    if len(set(times)) < len(packets):  # some have none, or two have one
        return None
    # Matroska stores no times of decoding: these are as good, ascending and never too late.
    delay = max(one - time for one, time in zip(ordered, times, strict=True))
    begin = ordered[0] - delay
    mov = "mov" in video.container_format
    file = io.BytesIO()
    with (
        suppress(av.error.FFmpegError),  # it does not go into such a file
        av.open(
            file, "w", format="mp4" if mov else "matroska", options=dict(_MP4) if mov else {}
        ) as output,
    ):
        stream = output.add_stream_from_template(video.stream)
        for packet, shown, decoded in zip(packets, times, ordered, strict=True):
            packet.pts, packet.dts = shown - begin, decoded - delay - begin
            packet.stream = stream
            output.mux(packet)
        output.close()
        return np.frombuffer(file.getbuffer(), dtype=np.uint8)
    return None
