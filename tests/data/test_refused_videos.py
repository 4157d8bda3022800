"""Files that are refused in a sentence, and what is shown turned or mirrored."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import av
import numpy as np
import pytest

from tests.support.kinds import KINDS, copy
from tests.support.videos import read_numbers, write_video
from videomae_fast.data import DECODERS, DecodeError, open_video
from videomae_fast.data.decoders.orientation import Orientation
from videomae_fast.data.decoders.pyav import PyAVReader
from videomae_fast.data.decoders.regular import comment_of
from videomae_fast.data.order import Draw
from videomae_fast.data.prepare import Job, PrepareSettings, transcode
from videomae_fast.data.probe import ProbeJob, probe_file
from videomae_fast.data.reading import ClipRequest, ReadSettings, read

ONE = 1 << 16


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_video(tmp_path_factory.mktemp("video") / "plain.mp4", 24)


def test_encrypted_files_are_called_so(tmp_path: Path) -> None:
    keys = {"encryption_key": "00112233445566778899aabbccddeeff", "encryption_kid": "ab" * 16}
    container = {"encryption_scheme": "cenc-aes-ctr", **keys}
    path = write_video(tmp_path / "cenc.mp4", 24, container=container)
    with pytest.raises(DecodeError, match=r"^encrypted \(DRM\)"):
        open_video(path)


def test_encrypted_matroska_is_called_so(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mkv", 24)
    content = path.read_bytes()
    key = b"\x47\xe1\x81\x05\x47\xe2\x84KEY1"  # algorithm and key
    encoding = b"\x50\x33\x81\x01\x50\x35" + bytes([0x80 + len(key)]) + key  # type: encryption
    encoding = b"\x62\x40" + bytes([0x80 + len(encoding)]) + encoding
    encodings = b"\x6d\x80" + bytes([0x80 + len(encoding)]) + encoding
    tracks = content.rindex(b"\x16\x54\xae\x6b")
    first = tracks + 4 + 2 + 6  # behind size and checksum, whose bytes may be any
    for name, begin in ((b"\x18\x53\x80\x67", 0), (b"\x16\x54", tracks), (b"\xae", first)):
        # The segment, its tracks and the first of these grow.
        at = content.index(name, begin) + (4 if begin <= tracks else 1)
        width = 9 - content[at].bit_length()
        size = int.from_bytes(content[at : at + width], "big") + len(encodings)
        content = content[:at] + size.to_bytes(width, "big") + content[at + width :]
        end = at + width
    path.write_bytes(content[:end] + encodings + content[end:])
    with pytest.raises(DecodeError, match=r"^encrypted \(DRM\)"):
        open_video(path)


def test_scrambled_transport_streams_are_called_so(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.ts", 24)
    content = bytearray(path.read_bytes())
    rng = np.random.default_rng(0)
    for at in range(0, len(content), 188):
        header = int.from_bytes(content[at : at + 4], "big")
        if header >> 8 & 0x1FFF == 256:  # the video
            content[at + 3] |= 0xC0
            begin = at + 4 + (1 + content[at + 4] if header & 0x20 else 0)
            content[begin : at + 188] = rng.bytes(at + 188 - begin)
    path.write_bytes(content)
    with pytest.raises(DecodeError, match=r"^encrypted \(DRM\)"):
        open_video(path)


def test_playlists_are_refused(
    video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They name further files, and may be nested."""
    write_video(tmp_path / "part.ts", 24)
    playlist = "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\npart.ts\n#EXT-X-ENDLIST\n"
    lists = {
        "a.m3u8": playlist,
        "b.mp4": playlist,
        "c.ffconcat": "ffconcat version 1.0\nfile part.ts\n",
        "d.sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\n"
        "m=video 5004 RTP/AVP 96\na=rtpmap:96 H264/90000\n",
    }
    monkeypatch.chdir(tmp_path)
    for name, content in lists.items():
        (tmp_path / name).write_text(content)
        with pytest.raises(DecodeError, match="refer to further ones, are refused"):
            open_video(tmp_path / name)


def test_a_codec_without_decoder(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mkv", 24)
    path.write_bytes(path.read_bytes().replace(b"V_MPEG4/ISO/AVC", b"V_MPEG9/ISO/XYZ"))
    with pytest.raises(DecodeError, match="a codec that FFmpeg has no decoder for"):
        open_video(path)


def test_a_pipe_is_no_video_and_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.mp4")
    for name, decoder in DECODERS.items():
        if decoder.why_not() is None:
            with pytest.raises(DecodeError, match="is no regular file"):
                open_video(tmp_path / "a.mp4", name)


def test_a_path_with_a_null_byte() -> None:
    with pytest.raises(DecodeError, match=r"can't be a path: .*null"):
        open_video("a\0b.mp4")


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
def test_too_many_pixels_are_refused_before_memory_is_taken(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width = stream.height = 8176
        stream.pix_fmt = "yuv420p"
        frame = av.VideoFrame(8176, 8176, "yuv420p")
        frame.pts = 0
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    with pytest.raises(DecodeError, match="has 8176 x 8176 pixels, and more than 36,000,000"):
        open_video(path)


@pytest.mark.parametrize("comment", [(24, 0), (0, 12), (int("9" * 4000), 12), (24, 10**9)])
def test_a_comment_of_a_prepared_file_that_can_not_be(
    video: Path, tmp_path: Path, comment: tuple[int, int]
) -> None:
    frames, gop = comment
    told = comment_of(1, 1).replace("1", "{}").format("9" * 5000 if frames > 99 else frames, gop)
    path = tmp_path / "commented.mp4"
    with av.open(str(video)) as read, av.open(str(path), "w") as write:
        write.metadata["comment"] = told
        stream = write.add_stream_from_template(read.streams.video[0])
        for packet in read.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                write.mux(packet)
    with open_video(path) as reader:
        assert reader.frame_count == 24
        assert read_numbers(reader.read([5, 23])) == [5, 23]


MATRICES = {
    Orientation(): (1, 0, 0, 1),
    Orientation(False, True, False): (-1, 0, 0, 1),
    Orientation(False, False, True): (1, 0, 0, -1),
    Orientation(False, True, True): (-1, 0, 0, -1),
    Orientation(True, False, False): (0, 1, 1, 0),
    Orientation(True, True, False): (0, 1, -1, 0),
    Orientation(True, False, True): (0, -1, 1, 0),
    Orientation(True, True, True): (0, -1, -1, 0),
}


@pytest.mark.parametrize("turned", MATRICES)
def test_a_display_matrix_turns_and_mirrors(
    video: Path, tmp_path: Path, turned: Orientation
) -> None:
    """As the matrix says, point by point: (x, y) is shown at (a x + c y, b x + d y)."""
    a, b, c, d = MATRICES[turned]
    matrix = [a * ONE, b * ONE, 0, c * ONE, d * ONE, 0, 0, 0, 1 << 30]
    content = video.read_bytes()
    plain = struct.pack(">9i", ONE, 0, 0, 0, ONE, 0, 0, 0, 1 << 30)
    at = content.index(plain, content.index(b"tkhd"))
    path = tmp_path / "turned.mp4"
    path.write_bytes(content[:at] + struct.pack(">9i", *matrix) + content[at + 36 :])
    with open_video(video) as reader:
        stored = reader.read([5])[0]
    height, width = stored.shape[:2]
    ys, xs = np.mgrid[:height, :width]
    new_x, new_y = a * xs + c * ys, b * xs + d * ys
    new_x, new_y = new_x - new_x.min(), new_y - new_y.min()
    expected = np.empty((new_y.max() + 1, new_x.max() + 1, 3), np.uint8)
    expected[new_y, new_x] = stored
    with open_video(path) as reader:
        np.testing.assert_array_equal(reader.read([5])[0], expected)
    facts = probe_file(ProbeJob(0, path, 0, -1, "", False))
    assert facts.mirrored == (a * d - b * c < 0)
    if DECODERS["decord"].why_not() is None and facts.mirrored:
        with pytest.raises(DecodeError, match="mirrored by metadata"):
            open_video(path, "decord")
    job = Job(path, tmp_path / "n.mp4", tmp_path / "p.mp4", PrepareSettings(crf=1))
    transcode(job)
    with open_video(tmp_path / "n.mp4") as reader:
        made = reader.read([5])[0]
    assert made.shape == expected.shape
    assert np.abs(made.astype(int) - expected).mean() < 2


def test_frames_behind_a_packet_that_can_not_be_decoded(tmp_path: Path) -> None:
    """One packet costs its group at most."""
    path = write_video(tmp_path / "a.webm", 36, codec="libvpx-vp9", options={"g": "12"})
    with av.open(str(path)) as container:
        spoilt = [bytes(packet) for packet in container.demux(video=0) if packet.size][17]
    content = path.read_bytes()
    path.write_bytes(content.replace(spoilt, b"\xff" * len(spoilt)))
    with open_video(path) as reader:
        assert reader.frame_count == 36
        with pytest.raises(DecodeError, match="frame 17 of 36 can't be decoded"):
            reader.read([16, 17])
        others = [*range(17), *range(24, 36)]
        assert read_numbers(reader.read(others)) == others


ONLY_HERE = (
    "MP4, frames hidden",
    "MP4, open groups",
    "MP4, fragmented",
    "FLV",
    "raw H.264",
    "fields in MP4",
    "MP4 cut within a group",
    "HEVC, open groups",
    "MPEG-4 without sync table",
)


@pytest.mark.parametrize("name", [*ONLY_HERE, "MP4"])
def test_a_device_is_not_handed_what_it_may_number_differently(tmp_path: Path, name: str) -> None:
    path = KINDS[name](tmp_path)
    request = ClipRequest(Draw(0, 0, 0, 0, 0), path, path, 1, -1, 0, -1, "", 2, (7,) * 5)
    codecs = frozenset({"h264", "hevc"})
    piece = read(request, ReadSettings(8, (64, 64), 1, "pyav", hand_over="encoded", codecs=codecs))
    if name == "MP4":
        assert (piece.kind, piece.kept_back) == ("encoded", None)
    else:
        assert piece.kind == "frames"
        assert piece.kept_back


@pytest.mark.parametrize("name", ONLY_HERE)
@pytest.mark.parametrize("decoder", [name for name in DECODERS if name != "pyav"])
def test_other_decoders_refuse_what_they_number_differently(
    tmp_path: Path, name: str, decoder: str
) -> None:
    if (why := DECODERS[decoder].why_not()) is not None:
        pytest.skip(why)
    with pytest.raises(DecodeError, match=rf"{decoder}( can't be trusted with it: .*|: )"):
        open_video(KINDS[name](tmp_path), decoder)


def test_plain_files_can_be_read_elsewhere(video: Path, tmp_path: Path) -> None:
    with PyAVReader(video) as reader:
        assert reader.why_only_here() is None
    with PyAVReader(copy(video, tmp_path / "a.mkv")) as reader:
        assert reader.why_only_here() is None
