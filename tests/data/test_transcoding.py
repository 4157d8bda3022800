"""One file through ``transcode``: frame i stays frame i, whatever the source is."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from tests.support.real_clips import CLIPS, needs_clips
from tests.support.videos import numbered_frame, read_numbers, remux, write_audio, write_video
from videomae_fast.data import DecodeError, open_video
from videomae_fast.data.decoders import DECODERS
from videomae_fast.data.decoders.pyav import PyAVReader
from videomae_fast.data.decoders.regular import comment_of
from videomae_fast.data.errors import OutputError
from videomae_fast.data.prepare import Job, PrepareSettings, Transcoded, transcode

X265_OPEN = {"x265-params": "keyint=12:bframes=3:open-gop=1:log-level=none"}
X264_OPEN = {"g": "12", "bf": "3", "x264-params": "open-gop=1:scenecut=0"}


def job(source: Path, folder: Path, **settings: Any) -> Job:
    return Job(source, folder / "new" / "1.mp4", folder / "part.mp4", PrepareSettings(**settings))


def made(source: Path, folder: Path, **settings: Any) -> tuple[Transcoded, Path]:
    one = job(source, folder, **settings)
    done = transcode(one)
    assert not one.partial.exists()
    return done, one.target


def all_frames(path: Path) -> NDArray[np.uint8]:
    with open_video(path) as video:
        return video.read(range(video.frame_count))


def stored(path: Path) -> tuple[Any, list[Any]]:
    """The stream's facts and its packets in the order shown (time in frames, key frame)."""
    with av.open(str(path)) as container:
        (stream,) = container.streams  # no sound, no subtitles
        rate = stream.average_rate
        packets = [packet for packet in container.demux(stream) if packet.size]
        times = sorted((p.pts * p.time_base * rate, p.is_keyframe) for p in packets)
        facts = (stream.codec_context.name, stream.pix_fmt, rate)
    return facts, times


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("plain.mp4", {}),
        ("open.mp4", {"options": X264_OPEN}),
        ("hevc_open.mkv", {"codec": "libx265", "options": X265_OPEN, "size": (128, 96)}),
        ("vp8.webm", {"codec": "libvpx", "options": {"g": "20", "auto-alt-ref": "1"}}),
        ("ten.mp4", {"pixels": "yuv420p10le"}),
        ("odd.mkv", {"pixels": "yuv444p", "size": (113, 85)}),
        ("transport.ts", {}),
        ("reordered.avi", {}),  # decoding times only
        ("raw.264", {}),  # no times at all
        ("mpeg4.avi", {"codec": "mpeg4", "options": {"g": "12", "bf": "2"}}),
        ("wrong.txt", {"name": "plain.mp4"}),
        ("100%d: a b.mp4", {}),
    ],
)
def test_every_frame_keeps_its_number(tmp_path: Path, name: str, options: dict[str, Any]) -> None:
    first = options.pop("name", name) if name == "wrong.txt" else name
    write_video(tmp_path / first, **options).rename(tmp_path / name)
    done, target = made(tmp_path / name, tmp_path)
    assert done.frames == 60
    assert read_numbers(all_frames(target)) == list(range(60))
    facts, packets = stored(target)
    assert facts[:2] == ("h264", "yuv420p")
    assert [time for time, _ in packets] == list(range(60))  # constant rate, from 0 on
    assert [number for number, (_, key) in enumerate(packets) if key] == [0, 16, 32, 48]
    assert done.bytes == target.stat().st_size
    assert (done.width, done.height) == all_frames(target).shape[2:0:-1]


def test_variable_frame_rate_keeps_the_order_and_the_average(tmp_path: Path) -> None:
    gaps = np.random.default_rng(0).integers(5, 300, 50)
    times = np.concatenate([[0], np.cumsum(gaps)])[:50].tolist()
    source = write_video(tmp_path / "variable.mp4", 50, times=times)
    done, target = made(source, tmp_path)
    assert read_numbers(all_frames(target)) == list(range(50))
    assert float(Fraction(done.rate)) == pytest.approx(49_000 / times[-1], rel=1e-3)
    facts, packets = stored(target)
    assert float(facts[2]) == pytest.approx(float(Fraction(done.rate)), rel=1e-3)
    assert [round(time) for time, _ in packets] == list(range(50))


@pytest.mark.parametrize("decoder", list(DECODERS))
@pytest.mark.parametrize("b_frames", [0, 1, 3])
def test_b_frames_can_be_left_out_and_every_decoder_counts_alike(
    tmp_path: Path, decoder: str, b_frames: int
) -> None:
    if (why := DECODERS[decoder].why_not()) is not None:
        pytest.skip(why)
    _, target = made(write_video(tmp_path / "plain.mp4"), tmp_path, b_frames=b_frames)
    with av.open(str(target)) as container:
        container.streams.video[0].codec_context.skip_frame = "NONREF"
        kept = sum(1 for _ in container.decode(video=0))
    # Of each group's 16 frames (the last has 12) the key frame, every (b_frames + 1)th one from
    # there, and the last one, since the group is closed.
    assert kept == {0: 60, 1: 9 + 9 + 9 + 7, 3: 5 + 5 + 5 + 4}[b_frames]
    for first in (0, 7, 13):
        ids = list(range(first, first + 45, 4))
        with open_video(target, decoder) as video:
            assert video.frame_count == 60
            assert read_numbers(video.read(ids)) == ids


@pytest.mark.parametrize(("shift", "shown"), [(-512 * 20, range(20, 60)), (512 * 7, range(60))])
def test_edit_lists_and_late_starts(tmp_path: Path, shift: int, shown: range) -> None:
    source = remux(write_video(tmp_path / "plain.mp4"), tmp_path / "moved.mp4", shift=shift)
    done, target = made(source, tmp_path)
    assert done.frames == len(shown)
    assert read_numbers(all_frames(target)) == list(shown)


@pytest.mark.parametrize("degrees", [90, 180, -90])
@pytest.mark.parametrize("size", [(112, 84), (400, 300)])
def test_rotated_videos_come_out_upright(
    tmp_path: Path, degrees: int, size: tuple[int, int]
) -> None:
    plain = write_video(tmp_path / "plain.mp4", 20, size=size)
    source = remux(plain, tmp_path / "turned.mp4", degrees=degrees)
    done, target = made(source, tmp_path, crf=5, short_side=150)
    with open_video(source) as video:
        height, width = video.read([0]).shape[1:3]
    scale = min(1.0, 150 / min(size))
    assert (done.width, done.height) == (round(width * scale), round(height * scale))
    with av.open(str(target)) as container:
        assert next(container.decode(video=0)).rotation == 0
    near(source, target)


def near(source: Path, target: Path, *, levels: float = 4.0, edge: float = 0.0) -> None:
    """The same pictures but for size and compression: mean colours of 4 x 4 parts agree.

    edge: share of each side of a part that is left out, where colours bleed across.
    """
    for one, two in zip(all_frames(source), all_frames(target), strict=True):
        for place in range(16):
            means = []
            for frame in (one, two):
                rows, columns = (
                    slice(round((at + edge) * side / 4), round((at + 1 - edge) * side / 4))
                    for at, side in zip(divmod(place, 4), frame.shape[:2], strict=True)
                )
                means.append(frame[rows, columns].reshape(-1, 3).mean(0))
            assert np.abs(means[0] - means[1]).max() < levels, (place, means)


def colours(number: int, width: int, height: int) -> NDArray[np.uint8]:
    """Saturated fields, which a wrong matrix or range shifts by 10 levels and more."""
    fields = np.array(
        [[(200, 30, 30), (30, 200, 30)], [(30, 30, 200), (235, 235, 235)]], dtype=np.uint8
    )
    return np.repeat(np.repeat(fields, height // 2, 0), width // 2, 1)


@pytest.mark.parametrize(
    ("codec", "pixels", "tags"),
    [
        ("libx264", "yuv420p", {}),
        ("libx264", "yuv420p", {"colorspace": 1}),  # BT.709
        ("libx264", "yuv420p", {"colorspace": 5, "color_range": 1}),
        ("libx264", "yuv420p", {"colorspace": 1, "color_range": 2}),  # full range
        ("libx264", "yuvj420p", {}),
        ("libx264rgb", "rgb24", {}),
        ("ffv1", "gray", {}),
    ],
)
@pytest.mark.parametrize("size", [(64, 48), (640, 480)])
def test_colours_are_those_that_training_sees_in_the_source(
    tmp_path: Path, codec: str, pixels: str, tags: dict[str, int], size: tuple[int, int]
) -> None:
    source = tmp_path / "colours.mkv"
    with av.open(str(source), "w") as output:
        stream = output.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = *size, pixels
        for name, value in tags.items():
            setattr(stream.codec_context, name, value)
        for number in range(3):
            frame = av.VideoFrame.from_ndarray(colours(number, *size), format="rgb24")
            frame = frame.reformat(format=pixels)
            for name, value in tags.items():
                setattr(frame, name, value)
            frame.pts = number
            output.mux(stream.encode(frame))
        output.mux(stream.encode())
    _, target = made(source, tmp_path, crf=5)
    near(source, target, edge=0.25)
    with av.open(str(target)) as container:
        frame = next(container.decode(video=0))
    assert frame.color_range in (0, 1)  # limited, for readers that know no other
    told = 1 if codec == "libx264rgb" else tags.get("colorspace", 2)
    assert frame.colorspace in ((5, 6) if told == 5 else (told,))  # 5 and 6 are one matrix


@pytest.mark.parametrize(
    ("size", "short_side", "expected"),
    [
        ((340, 256), 256, (340, 256)),
        ((1920, 1080), 256, (456, 256)),  # 455.1: the nearest even number
        ((1080, 1920), 256, (256, 456)),
        ((257, 257), 256, (256, 256)),
        ((113, 85), 256, (113, 85)),  # never larger; the odd column is cut off later
        ((64, 300), 256, (64, 300)),
    ],
)
def test_size_to_scale_to(
    size: tuple[int, int], short_side: int, expected: tuple[int, int]
) -> None:
    assert PrepareSettings(short_side=short_side).target_size(*size) == expected


def test_odd_sides_lose_a_column_and_a_row_and_nothing_is_scaled(tmp_path: Path) -> None:
    source = write_video(
        tmp_path / "odd.mkv", 5, codec="ffv1", pixels="yuv444p", size=(113, 85), options={}
    )
    done, target = made(source, tmp_path, crf=0)
    assert (done.width, done.height) == (112, 84)
    assert (done.source_width, done.source_height, done.source_codec) == (113, 85, "ffv1")
    old, new = all_frames(source)[:, :84, :112].astype(int), all_frames(target).astype(int)
    assert np.abs(old - new)[:, :24].mean() < 2  # grey: only the colours of 4:2:0 differ


def test_one_frame_and_tiny_sizes(tmp_path: Path) -> None:
    done, target = made(write_video(tmp_path / "one.mp4", 1), tmp_path)
    assert done.frames == 1
    assert read_numbers(all_frames(target)) == [0]

    def dot(number: int, width: int, height: int) -> NDArray[np.uint8]:
        return np.full((height, width, 3), 90, dtype=np.uint8)

    small: dict[str, Any] = {"pixels": "yuv444p", "make": dot}
    done, _ = made(write_video(tmp_path / "dot.mkv", 2, size=(3, 2), **small), tmp_path)
    assert (done.width, done.height) == (2, 2)
    with pytest.raises(DecodeError, match=r"^too small: 1x9 pixels$"):
        made(write_video(tmp_path / "line.mkv", 2, size=(1, 9), **small), tmp_path)


def test_settings_reach_the_encoder(tmp_path: Path) -> None:
    source = write_video(tmp_path / "plain.mp4", 30, make=noise)
    good, target = made(source, tmp_path, crf=10)
    assert made(source, tmp_path, crf=40)[0].bytes < good.bytes / 2
    made(source, tmp_path, gop=8, b_frames=2, preset="fast")
    keys = [number for number, (_, key) in enumerate(stored(target)[1]) if key]
    assert keys == [0, 8, 16, 24]
    content = target.read_bytes()
    for option in (
        b"cabac=0",
        b"deblock=0",
        b"bframes=2",
        b"b_pyramid=0",
        b"scenecut=0",
        b"me=hex",
    ):
        assert option in content
    assert content.index(b"moov") < content.index(b"mdat")


def noise(number: int, width: int, height: int) -> NDArray[np.uint8]:
    frame = numbered_frame(number, width, height)
    still = np.random.default_rng(number // 8).integers(0, 256, frame[30:].shape)
    frame[30:] = np.roll(still, number * 3, 1)
    return frame


@pytest.mark.parametrize(
    "settings",
    [
        {"short_side": 255},
        {"short_side": 0},
        {"gop": 0},
        {"b_frames": 17},
        {"crf": 52},
        {"preset": "x"},
    ],
)
def test_impossible_settings(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=str(next(iter(settings)).replace("_", " "))):
        PrepareSettings(**settings)


def test_files_that_are_no_whole_video_have_a_reason(tmp_path: Path) -> None:
    whole = write_video(tmp_path / "whole.mp4", container={"movflags": "faststart"}).read_bytes()
    (tmp_path / "cut.mp4").write_bytes(whole[: len(whole) * 7 // 10])
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "text.mp4").write_bytes(b"not a video\n" * 50)
    write_audio(tmp_path / "audio.m4a")
    for name, reason in {
        "cut.mp4": r"^truncated: 2\d of 60 frames are in the file$",
        "empty.mp4": "^0 bytes$",
        "text.mp4": "Invalid data",
        "audio.m4a": "^no video stream$",
        "none.mp4": "^no such file$",
    }.items():
        one = job(tmp_path / name, tmp_path)
        with pytest.raises(DecodeError, match=reason):
            transcode(one)
        assert not one.target.exists()
        assert not one.partial.exists()


def test_a_damaged_frame_is_named_and_the_numbers_never_slip(tmp_path: Path) -> None:
    path = write_video(tmp_path / "noise.mp4", make=noise)
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
        position, size, number = (lambda p: (p.pos, p.size, p.pts // 512))(packets[24])
    broken = bytearray(path.read_bytes())
    half = position + size // 2
    broken[half : position + size] = bytes(position + size - half)
    path.write_bytes(broken)
    one = job(path, tmp_path)
    with pytest.raises(DecodeError, match=f"^frame {number} of 60 can't be decoded$"):
        transcode(one)
    assert not one.partial.exists()


def test_lost_frames_are_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The new file is counted, whatever the encoder and the container make of it."""
    from videomae_fast.data.decoders import pyav

    source = write_video(tmp_path / "plain.mp4", 40)
    plain = pyav.PyAVReader.decode_all
    monkeypatch.setattr(pyav.PyAVReader, "decode_all", lambda self: list(plain(self))[:-1])
    one = job(source, tmp_path)
    with pytest.raises(DecodeError, match=r"^39 of 40 frames came out$"):
        transcode(one)
    assert not one.target.exists()


@pytest.mark.parametrize("size", [(112, 84), (512, 512)])  # noticed at the end, on the way
def test_a_full_disk_is_no_fault_of_the_source(tmp_path: Path, size: tuple[int, int]) -> None:
    source = write_video(tmp_path / "plain.mp4", size=size, make=noise)
    one = job(source, tmp_path)
    one.partial.symlink_to("/dev/full")
    with pytest.raises(OutputError, match=r"part\.mp4: can't be written: No space left"):
        transcode(one)
    assert not one.target.exists()
    assert transcode(one).frames == 60  # the link is gone: with room, the same job is done


def test_what_goes_wrong_at_the_target_is_no_fault_of_the_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.EDQUOT, "Disk quota exceeded")

    source = write_video(tmp_path / "plain.mp4")
    monkeypatch.setattr("videomae_fast.data.prepare.transcoding.os.replace", full)
    one = job(source, tmp_path)
    with pytest.raises(OutputError, match=r"1\.mp4: can't be written: Disk quota exceeded"):
        transcode(one)
    assert not one.partial.exists()


@needs_clips
def test_real_clips(tmp_path: Path) -> None:
    for clip in CLIPS:
        done, target = made(clip, tmp_path)
        assert min(done.width, done.height) == min(256, done.source_width, done.source_height)
        near(clip, target, levels=6.0 if "10bits" in clip.name else 4.0)


def changed(
    source: Path, target: Path, packets: range, late: Sequence[float], comment: str = ""
) -> Path:
    """Some packets of a prepared file under the old header's comment; groups are late by frames."""
    with av.open(str(source)) as old, av.open(str(target), "w") as new:
        new.metadata["comment"] = comment or old.metadata["comment"]
        stream = new.add_stream_from_template(old.streams.video[0])
        step = int(1 / (old.streams.video[0].average_rate * old.streams.video[0].time_base))
        for number, packet in enumerate(p for p in old.demux(video=0) if p.size):
            if number in packets:
                moved = int(step * (late[number // 16] - packets.start))
                packet.pts, packet.dts = packet.pts + moved, packet.dts + moved
                packet.stream = stream
                new.mux(packet)
    return target


@pytest.mark.parametrize("rate", [Fraction(25), Fraction(30000, 1001), Fraction(719, 29)])
def test_prepared_files_are_opened_without_reading_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rate: Fraction
) -> None:
    times = [round(number * 1000 / rate) for number in range(60)]
    _, target = made(write_video(tmp_path / "plain.mp4", times=times), tmp_path)
    with PyAVReader(target, scan=True) as scanned:
        times, keys, reordered = scanned.times, scanned.key_frames, scanned.reordered
    monkeypatch.setattr("videomae_fast.data.decoders.pyav.read_packets", None)
    with PyAVReader(target) as video:
        assert (video.times, video.key_frames, video.reordered) == (times, keys, reordered)
        for first in (0, 15, 16, 50):
            assert read_numbers(video.read(range(first, first + 10))) == list(
                range(first, first + 10)
            )


def test_a_comment_that_no_longer_holds_is_not_believed(tmp_path: Path) -> None:
    _, target = made(write_video(tmp_path / "plain.mp4"), tmp_path)
    for name, packets, late, *comment in (
        ("cut.mp4", range(16, 60), (0, 0, 0, 0)),
        ("short.mp4", range(32), (0, 0)),
        ("late.mp4", range(60), (5, 5, 5, 5)),
        ("uneven.mp4", range(60), (0, 0.5, 0, 0)),
        ("groups.mp4", range(60), (0, 0, 0, 0), comment_of(60, 8)),
    ):
        other = changed(target, tmp_path / name, packets, late, *comment)
        with av.open(str(other)) as container:
            assert "prepared" in container.metadata["comment"]
        with PyAVReader(other) as video, PyAVReader(other, scan=True) as scanned:
            assert (video.times, video.key_frames) == (scanned.times, scanned.key_frames)
            assert video.frame_count == len(packets)
            assert read_numbers(video.read(range(len(packets)))) == list(packets)


def test_a_prepared_file_that_is_cut_off(tmp_path: Path) -> None:
    """What is there is read; a frame that is not has a reason; looking for it finds it."""
    source = write_video(tmp_path / "plain.mp4", make=noise)
    _, target = made(source, tmp_path, crf=5)
    content = target.read_bytes()
    target.write_bytes(content[: len(content) * 7 // 10])
    with PyAVReader(target) as video:
        assert read_numbers(video.read([0, 5])) == [0, 5]
        with pytest.raises(DecodeError, match="frame 59 of 60 can't be decoded"):
            video.read([3, 59])
    with pytest.raises(DecodeError, match=r"truncated: .* of 60 frames are in the file"):
        PyAVReader(target, scan=True)
