"""Small numbered videos of the kinds that real files come in, sound ones and odd ones."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any, Final

import av
import numpy as np
from av.bitstream import BitStreamFilterContext
from numpy.typing import NDArray

from tests.support.h264_fields import write_fields
from tests.support.videos import numbered_frame, read_number, write_video

Change = Callable[[Any, int], None]

FRAMES: Final = 40
BARS: Final = (128, 96)
B2: Final = {"g": "12", "bf": "2"}
B0: Final = {"g": "12", "bf": "0"}
VP9: Final = {"g": "12", "deadline": "realtime", "cpu-used": "8"}
ALT_REF: Final = {"g": "24", "auto-alt-ref": "1", "lag-in-frames": "12", "cpu-used": "5"}
QUIET: Final = "log-level=none"


def plain_decode(path: Path) -> list[int]:
    """The numbers of the frames that FFmpeg gives out, damaged packets passed over."""
    numbers = []
    with av.open(f"file:{path}") as container:
        stream = container.streams.best("video")
        assert stream is not None
        for packet in container.demux(stream):
            try:
                decoded = packet.decode()
            except av.error.FFmpegError:
                continue
            numbers += [read_number(frame.to_ndarray(format="rgb24")) for frame in decoded]
    return numbers


def copy(
    source: Path,
    target: Path,
    *,
    packets: Callable[[int], bool] = lambda place: True,
    change: Change = lambda packet, place: None,
    shift: int = 0,
    filters: Iterable[str] = (),
) -> Path:
    """Copies the packets that ``packets`` takes; times moved by ``shift``, ``change`` applied."""
    with av.open(str(source)) as read, av.open(str(target), "w") as write:
        stream = read.streams.video[0]
        new = write.add_stream_from_template(stream)
        chain = [BitStreamFilterContext(name, stream) for name in filters]
        place = 0
        for packet in read.demux(stream):
            if packet.dts is None and packet.pts is None:
                continue
            parts = [packet]
            for one in chain:
                parts = [made for part in parts for made in one.filter(part)]
            for part in parts:
                if packets(place):
                    part.stream = new
                    part.pts = None if part.pts is None else part.pts + shift
                    part.dts = None if part.dts is None else part.dts + shift
                    change(part, place)
                    write.mux(part)
                place += 1
    return target


def _from(first: int) -> Callable[[int, int, int], NDArray[np.uint8]]:
    return lambda number, width, height: numbered_frame(first + number, width, height)


def _plain(name: str, folder: Path, frames: int = FRAMES, **settings: Any) -> Path:
    return write_video(folder / name, frames, **settings)


def _copied(name: str, source: str, folder: Path, settings: dict[str, Any], **how: Any) -> Path:
    return copy(_plain(source, folder, **settings), folder / name, **how)


def _pts_are_dts(packet: Any, place: int) -> None:
    packet.pts = packet.dts


def _no_flags(packet: Any, place: int) -> None:
    packet.is_keyframe = False


def _all_flags(packet: Any, place: int) -> None:
    packet.is_keyframe = True


def _same_times(packet: Any, place: int) -> None:
    packet.pts = packet.dts = packet.dts - place % 2 * packet.duration


def _without_sync_table(folder: Path, options: dict[str, str]) -> Path:
    path = _plain("s.mp4", folder, codec="mpeg4", options=options, size=BARS)
    path.write_bytes(path.read_bytes().replace(b"stss", b"free"))
    return path


def _commented_gif(folder: Path) -> Path:
    path = _gif(folder)
    content = path.read_bytes()
    path.write_bytes(content[:-1] + b"\x21\xfe\x0cmade by hand\x00" + content[-1:])
    return path


def _gif(folder: Path) -> Path:
    return _plain("g.gif", folder, codec="gif", pixels="rgb8", options={})


def _recordings(name: str, folder: Path, begin: int, **settings: Any) -> Path:
    """Two recordings in one file; the second one's times begin at ``begin`` milliseconds."""
    path = folder / name
    content = b""
    for number, first in enumerate((0, FRAMES)):
        part = folder / f"{number}-{name}"
        times = [number * begin + 40 * place for place in range(FRAMES)]
        write_video(part, FRAMES, make=_from(first), times=times, **settings)
        content += part.read_bytes()
    path.write_bytes(content)
    return path


def _cut_off(name: str, folder: Path, share: float, **settings: Any) -> Path:
    path = _plain(name, folder, **settings)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    return path


def scenes(number: int, width: int, height: int) -> NDArray[np.uint8]:
    """Numbered frames with textures that change every seven frames."""
    frame = numbered_frame(number, width, height)
    texture = np.random.default_rng(number // 7).integers(0, 256, frame[40:].shape)
    frame[40:] = np.roll(texture, number, axis=1)
    return frame


def _without_recovery_points(folder: Path) -> Path:
    """I pictures flagged as key frames, behind which later pictures refer."""
    options = {"g": "250", "keyint_min": "200", "refs": "4", "bf": "2"}
    return _plain("i.ts", folder, options=options, make=scenes)


def _packed(folder: Path) -> Path:
    """MPEG-4 in AVI as DivX packs it: a P and a B picture in one packet, then an empty one."""
    options = {"g": "13", "bf": "1", "b_strategy": "0", "sc_threshold": "1000000000"}
    source = _plain("b.avi", folder, codec="mpeg4", options=options, size=BARS)
    with av.open(str(source)) as container:
        packets = [bytes(packet) for packet in container.demux(video=0) if packet.size]
    packed, held = [], 0
    for place, packet in enumerate(packets):
        if held:
            packed.append(b"\x00\x00\x01\xb6\x51\x03\x7f")  # a picture that is not coded
            held = 0
        elif place + 1 < len(packets) and _vop(packets[place + 1]) == 2 and _vop(packet) != 2:
            packed.append(packet + packets[place + 1])
            held = 1
        else:
            packed.append(packet)
    told = b"\x00\x00\x01\xb2DivX503b1234p"
    first = packed[0].index(b"\x00\x00\x01\xb6")
    packed[0] = packed[0][:first] + told + packed[0][first:]
    path = folder / "packed.avi"
    with av.open(str(source)) as read, av.open(str(path), "w") as write:
        stream = write.add_stream_from_template(read.streams.video[0])
        for place, content in enumerate(packed):
            packet = av.Packet(content)
            packet.stream, packet.pts, packet.dts = stream, place, place
            packet.time_base = read.streams.video[0].time_base
            packet.is_keyframe = _vop(content) == 0
            write.mux(packet)
    return path


def _vop(packet: bytes) -> int:
    """Coding type of the picture: 0 I, 1 P, 2 B."""
    return packet[packet.index(b"\x00\x00\x01\xb6") + 4] >> 6


def _fields_in_mp4(folder: Path) -> Path:
    """A sample per field."""
    source = write_fields(folder / "fields.264", 6)
    path = folder / "fields.mp4"
    with av.open(str(source)) as read, av.open(str(path), "w") as write:
        stream = write.add_stream_from_template(read.streams.video[0])
        place = 0
        for packet in read.demux(video=0):
            if packet.size:
                packet.stream = stream
                packet.pts = packet.dts = place
                packet.time_base = stream.time_base
                place += 1
                write.mux(packet)
    return path


X265: Final = {"x265-params": f"keyint=12:bframes=3:{QUIET}"}
X265_OPEN: Final = {"x265-params": f"keyint=12:bframes=3:open-gop=1:{QUIET}"}
H264: Final[dict[str, Any]] = {}
HEVC: Final[dict[str, Any]] = {"codec": "libx265", "options": X265, "size": BARS}
HEVC_OPEN: Final[dict[str, Any]] = {"codec": "libx265", "options": X265_OPEN, "size": BARS}
MPEG2: Final[dict[str, Any]] = {"codec": "mpeg2video", "options": B2, "size": BARS}
MPEG4: Final[dict[str, Any]] = {"codec": "mpeg4", "options": B0, "size": BARS}
ALTERNATE: Final[dict[str, Any]] = {"codec": "libvpx-vp9", "options": ALT_REF}
ONE_KEY: Final[dict[str, Any]] = {"options": {"g": "250", "bf": "2", "sc_threshold": "0"}}
OPEN: Final[dict[str, Any]] = {
    "options": {"g": "12", "bf": "3", "x264-params": "open-gop=1:scenecut=0"}
}

Maker = Callable[[Path], Path]

# Files whose header and times hold: numbered without decoding.
SOUND: Final[dict[str, Maker]] = {
    "MP4": partial(_plain, "a.mp4"),
    "MP4, no B-frames": partial(_plain, "a.mp4", options=B0),
    "MP4, open groups": partial(_plain, "a.mp4", **OPEN),
    "MP4, fragmented": partial(_plain, "a.mp4", container={"movflags": "frag_keyframe+empty_moov"}),
    "MP4, variable rate": partial(
        _plain, "a.mp4", times=[40 * n + n * n % 17 for n in range(FRAMES)]
    ),
    "MP4, frames hidden": lambda folder: _copied("e.mp4", "a.mp4", folder, H264, shift=-512 * 20),
    "MP4, its key frame hidden": lambda folder: _copied(
        "e.mp4", "a.mp4", folder, ONE_KEY, shift=-512 * 5
    ),
    "MKV": partial(_plain, "a.mkv"),
    "FLV": partial(_plain, "a.flv"),
    "transport stream": partial(_plain, "a.ts"),
    "HEVC": partial(_plain, "a.mp4", **HEVC),
    "HEVC, open groups": partial(_plain, "a.mkv", **HEVC_OPEN),
    "HEVC in a transport stream": partial(_plain, "a.ts", **HEVC),
    "VP8 with hidden frames": partial(
        _plain, "a.webm", codec="libvpx", options={"g": "20", "auto-alt-ref": "1"}
    ),
    "VP9": partial(_plain, "a.webm", codec="libvpx-vp9", options=VP9),
    "VP9 with hidden frames": partial(_plain, "a.webm", **ALTERNATE),
    "VP9 with hidden frames apart": lambda folder: _copied(
        "b.mkv", "a.mkv", folder, ALTERNATE, filters=["vp9_superframe_split"]
    ),
    "AV1": partial(
        _plain, "a.mkv", codec="libsvtav1", options={"preset": "10", "g": "16"}, size=BARS
    ),
    "MPEG-2 in a transport stream": partial(_plain, "a.ts", **MPEG2),
    "MPEG-1 in a program stream": partial(
        _plain, "a.mpg", frames=100, codec="mpeg1video", options=B0, size=BARS
    ),
    "MPEG-4 in AVI": partial(_plain, "a.avi", **MPEG4),
    "MPEG-4 in MP4": partial(_plain, "a.mp4", codec="mpeg4", options=B2, size=BARS),
    "MPEG-4 without sync table": lambda folder: _without_sync_table(folder, B0),
    "MPEG-4 with B-frames, without sync table": lambda folder: _without_sync_table(folder, B2),
    "raw MPEG-4": partial(_plain, "a.m4v", codec="mpeg4", options=B2, size=BARS),
    "Motion JPEG": partial(_plain, "a.avi", codec="mjpeg", pixels="yuvj420p", options={}),
    "Sorenson in FLV": partial(_plain, "a.flv", codec="flv", options={"g": "12"}),
    "H.264 in ASF": partial(_plain, "a.asf", options=B0),
    "FFV1": partial(_plain, "a.mkv", codec="ffv1", options={"g": "5"}),
    "ProRes": partial(_plain, "a.mov", codec="prores_ks", pixels="yuv422p10le", options={}),
    "I pictures that are no key frames": _without_recovery_points,
    "no key flags": lambda folder: _copied("k.nut", "a.mkv", folder, H264, change=_no_flags),
    "key flags only": lambda folder: _copied("k.mkv", "a.mkv", folder, H264, change=_all_flags),
}

# Files that tell the numbers of their frames only when they are decoded.
ODD: Final[dict[str, Maker]] = {
    "MP4 cut within a group": lambda folder: _copied(
        "c.mp4", "a.mp4", folder, H264, packets=lambda place: place >= 5
    ),
    "MKV cut within a group": lambda folder: _copied(
        "c.mkv", "a.mkv", folder, H264, packets=lambda place: place >= 5
    ),
    "transport stream cut within a group": lambda folder: _copied(
        "c.ts", "a.ts", folder, H264, packets=lambda place: place >= 5
    ),
    "HEVC cut at an open group": lambda folder: _copied(
        "c.mkv", "a.mkv", folder, HEVC_OPEN, packets=lambda place: place >= 11
    ),
    "MPEG-2 that begins with an open group": lambda folder: _copied(
        "c.ts", "a.ts", folder, MPEG2, packets=lambda place: place >= 10
    ),
    "times of decoding in MP4": lambda folder: _copied(
        "n.mp4", "a.mp4", folder, H264, change=_pts_are_dts
    ),
    "times of decoding in MKV": lambda folder: _copied(
        "n.mkv", "a.mp4", folder, H264, change=_pts_are_dts
    ),
    "B-frames in ASF": partial(_plain, "a.asf"),
    "B-frames in AVI": partial(_plain, "a.avi"),
    "MPEG-4 with B-frames in AVI": partial(_plain, "a.avi", codec="mpeg4", options=B2, size=BARS),
    "MPEG-4 packed in AVI": _packed,
    "doubled times": lambda folder: _copied(
        "d.mkv", "a.mkv", folder, {"codec": "libvpx-vp9", "options": VP9}, change=_same_times
    ),
    "raw H.264": partial(_plain, "a.264"),
    "raw HEVC": partial(_plain, "a.265", **HEVC),
    "interlaced": partial(_plain, "a.mp4", options={"x264-params": "tff=1:keyint=12"}, size=BARS),
    "fields": lambda folder: write_fields(folder / "f.264", 6),
    "fields in MP4": _fields_in_mp4,
    "GIF": _gif,
    "GIF that ends in a comment": _commented_gif,
    "APNG": partial(_plain, "a.apng", codec="apng", pixels="rgb24", options={}),
    "MPEG-2 in a program stream": partial(_plain, "a.mpg", frames=100, **MPEG2),
    "WMV": partial(_plain, "a.asf", codec="wmv2", options={"g": "12"}),
    "DivX 3": partial(_plain, "a.avi", codec="msmpeg4", options={"g": "12"}),
    "recordings with the same times": partial(_recordings, "r.ts", begin=0),
    "recordings that overlap": partial(_recordings, "r.ts", begin=830),
    "recordings that go back": partial(_recordings, "r.ts", begin=-400, options=B0),
    "transport stream cut off": partial(_cut_off, "t.ts", share=0.93, make=scenes),
}

KINDS: Final = {**SOUND, **ODD}
