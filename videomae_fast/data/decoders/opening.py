"""Opens a video file with FFmpeg, which is kept from doing more than reading that file."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Final

from videomae_fast.data.decoders.base import MAX_PIXELS, check_size, too_large
from videomae_fast.data.decoders.content import Content, opened
from videomae_fast.data.decoders.transport import is_scrambled
from videomae_fast.data.errors import DecodeError

if TYPE_CHECKING:
    from av import VideoStream
    from av.container import InputContainer
    from av.packet import Packet

ENCRYPTED: Final = "encrypted (DRM): it has to be decrypted before it can be read"

KNOWN_EVERYWHERE: Final = ("mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm")
"""Containers whose header names all streams, and whose times all decoders read alike."""

# FFmpeg's names of what videos are stored in. Playlists and other formats that refer to further
# files or to the network are left out.
_FORMATS: Final = (
    "mov,mp4,m4a,3gp,3g2,mj2",
    "matroska,webm",
    "3dostr,4xm,amv,anm,apng,asf,av1,avi,avs,avs2,avs3,bethsoftvid,bfi,bink,bmv,cavsvideo,cdxl",
    "cine,dhav,dirac,dnxhd,dv,dxa,ea,evc,film_cpk,filmstrip,flic,flv,gif,gxf,h261,h263,h264,hevc",
    "hnm,idcin,ipmovie,ipu,ivf,ivr,jpegxl_anim,jv,kux,live_flv,lmlm4,lxf,m4v,mjpeg,mjpeg_2000",
    "mlv,mm,moflex,mpeg,mpegts,mpegvideo,mpjpeg,mtv,mv,mvi,mxf,nsv,nut,nuv,obu,paf,pmp,pva,r3d,rl2",
    "rm,roq,rpl,ser,siff,smjpeg,smk,smush,swf,thp,tiertexseq,tmv,ty,txd,vc1,vc1test,vivo,vividas",
    "vmd,vvc,wc3movie,webp,wtv,xmv,yop,yuv4mpegpipe",
)
_CONTAINER_OPTIONS: Final = {"protocol_whitelist": "file", "format_whitelist": ",".join(_FORMATS)}
_DECODER_OPTIONS: Final = {"max_pixels": str(MAX_PIXELS)}

_TOO_LARGE: Final = re.compile(r"Picture size (\d+)x(\d+)")
_LINES: Final = 8


def open_stream(content: Content) -> tuple[InputContainer, VideoStream]:
    """The container and its video stream; one thread, and no other stream is read.

    Args:
        content: of a file.

    Returns:
        Both, open; closing the container closes both.

    Raises:
        DecodeError: no video, encrypted, larger than ``MAX_PIXELS`` or of a codec without decoder.
    """
    import av

    try:
        container = _open(content)
    except av.error.FFmpegError as error:
        raise DecodeError(_reason(content, error)) from error
    try:
        stream = _video_stream(container)
        context = stream.codec_context
        if not context.width or not context.height:
            raise DecodeError(_why_sizeless(content))
        check_size(context.width, context.height)
        context.options = dict(_DECODER_OPTIONS)
        context.thread_count = 1
        for other in container.streams:
            if other.index != stream.index:
                other.discard = av.stream.Discard.all  # sound is not even read
    except BaseException:
        container.close()
        raise
    return container, stream


def _open(content: Content) -> InputContainer:
    import av

    # The prefix keeps FFmpeg from reading a protocol into names like "a:b.mp4".
    return av.open(
        f"file:{content}" if isinstance(content, Path) else opened(content),
        "r",
        metadata_errors="replace",
        container_options=dict(_CONTAINER_OPTIONS),
        options=dict(_DECODER_OPTIONS),
    )


def _video_stream(container: InputContainer) -> VideoStream:
    import av

    stream = container.streams.best("video")
    if stream is None:
        # FFmpeg's best one has a decoder; is there one without?
        stream = next((one for one in container.streams if one.type == "video"), None)
    cover = av.stream.Disposition.attached_pic  # the picture of an audio file
    if not isinstance(stream, av.VideoStream) or stream.disposition & cover:
        if not container.streams and "mov" in container.format.name:
            raise DecodeError("no streams: the moov atom is missing (truncated?)")
        raise DecodeError("no video stream")
    if "enc_key_id" in stream.metadata:
        raise DecodeError(ENCRYPTED)
    if stream.codec_context is None:
        raise DecodeError("a codec that FFmpeg has no decoder for")
    if stream.codec_context.codec_tag in ("encv", "drmi"):
        raise DecodeError(ENCRYPTED)
    return stream


def demux(container: InputContainer, stream: VideoStream) -> Iterator[Packet[VideoStream]]:
    """The packets of a stream.

    Args:
        container: open.
        stream: of the container.

    Returns:
        Packets in the file's order, and an empty one at the end.
    """
    packets = container.demux(stream)
    return packets if container.format.name in KNOWN_EVERYWHERE else _to_the_end(packets)


def _to_the_end(packets: Iterator[Packet[VideoStream]]) -> Iterator[Packet[VideoStream]]:
    try:
        yield from packets
    except IndexError:  # PyAV's own at the end, where other streams appeared on the way
        return


def is_encrypted(packet: Packet[VideoStream]) -> bool:
    """Whether the container says so of a packet."""
    # Not packet.has_sidedata, whose look-up of the name costs four times as much
    return "encryption_info" in [side.data_type for side in packet.iter_sidedata()]


def _why_sizeless(content: Content) -> str:
    """Why FFmpeg knows no size of the frames."""
    if is_scrambled(content):
        return ENCRYPTED
    for line in _log_of_opening(content):
        if (found := _TOO_LARGE.search(line)) is not None:
            return too_large(int(found[1]), int(found[2]))
    return "has frames of an unknown size"


def _reason(content: Content, error: OSError | Exception) -> str:
    """What FFmpeg says about a file it can't open, with what it only writes to its log."""
    details = _log_of_opening(content)
    if any("not on whitelist" in line or "m3u8" in line for line in details):
        return (
            "no video format that is read (pictures, and playlists and other files that refer to "
            "further ones, are refused)"
        )
    reason = getattr(error, "strerror", None) or str(error)
    if details:
        reason += f" ({'; '.join(details)})"
    with opened(content) as file:
        if file.read(8)[4:] == b"ftyp":
            reason += ": an MP4 file that is cut off or damaged"
    return reason


def _log_of_opening(content: Content) -> list[str]:
    """The first lines that FFmpeg writes to its log about what is wrong with a file."""
    import av

    level, skips = av.logging.get_level(), av.logging.get_skip_repeated()
    try:
        av.logging.set_level(av.logging.ERROR)
        av.logging.set_skip_repeated(False)  # it was opened before
        with av.logging.Capture() as log, suppress(av.error.FFmpegError):
            _open(content).close()
    finally:
        av.logging.set_level(level)
        av.logging.set_skip_repeated(skips)
    return [line.strip() for _, _, line in islice(log, _LINES) if line.strip()]
