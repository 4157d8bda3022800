from __future__ import annotations

import gc
import os
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from tests.support.real_clips import CLIPS
from tests.support.videos import (
    WIDTH,
    numbered_frame,
    read_numbers,
    remux,
    write_audio,
    write_video,
)
from videomae_fast.data import DECODERS, DecodeError, FolderReader, open_video, read_clip
from videomae_fast.data.decoders import find_decoder
from videomae_fast.errors import BackendUnavailableError

ORDER = [5, 3, 3, 59, 0, 30, 21, 20, 19, 18, 36]
X265 = {"x265-params": "keyint=12:bframes=3:log-level=none"}
X265_OPEN = {"x265-params": "keyint=12:bframes=3:open-gop=1:log-level=none"}


def usable(name: str) -> str:
    reason = DECODERS[name].why_not()
    if reason is not None:
        pytest.skip(reason)
    return name


@pytest.fixture(params=list(DECODERS))
def decoder(request: pytest.FixtureRequest) -> str:
    return usable(request.param)


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_video(tmp_path_factory.mktemp("video") / "plain.mp4")


def key_frames(path: Path) -> int:
    with av.open(str(path)) as container:
        return sum(packet.is_keyframe for packet in container.demux(video=0) if packet.size)


def test_numbers_read_back(video: Path, decoder: str) -> None:
    assert key_frames(video) == 5
    with open_video(video, decoder) as reader:
        assert reader.frame_count == 60
        frames = reader.read(ORDER)
        assert frames.dtype == np.uint8
        assert frames.shape == (len(ORDER), 84, 112, 3)
        assert read_numbers(frames) == ORDER
        assert read_numbers(reader.read(range(60))) == list(range(60))
        for number in (59, 0, 13, 11, 12, 47):
            assert read_numbers(reader.read([number])) == [number]


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("open.mp4", {"options": {"g": "12", "bf": "3", "x264-params": "open-gop=1:scenecut=0"}}),
        ("refresh.mp4", {"options": {"x264-params": "intra-refresh=1:keyint=20:bframes=0"}}),
        ("fragmented.mp4", {"container": {"movflags": "frag_keyframe+empty_moov"}}),
        ("ten.mp4", {"pixels": "yuv420p10le"}),
        ("odd.mkv", {"pixels": "yuv444p", "size": (113, 85)}),
        ("hevc.mp4", {"codec": "libx265", "options": X265, "size": (128, 96)}),
        ("hevc_open.mkv", {"codec": "libx265", "options": X265_OPEN, "size": (128, 96)}),
        ("vp8.webm", {"codec": "libvpx", "options": {"g": "20", "auto-alt-ref": "1"}}),
        ("vp9.webm", {"codec": "libvpx-vp9", "options": {"g": "20", "auto-alt-ref": "1"}}),
        ("transport.ts", {}),
        ("flash.flv", {}),
        ("reordered.avi", {}),  # decoding times only
        ("raw.264", {}),  # no times at all
        ("mpeg4.avi", {"codec": "mpeg4", "options": {"g": "12", "bf": "2"}}),
        ("100%d: a.mp4", {}),
        (os.fsdecode(b"\xff\xfe.mp4"), {}),
    ],
)
def test_numbers_read_back_from_every_kind(
    tmp_path: Path, name: str, options: dict[str, object]
) -> None:
    """Closed and open groups, B-frames, missing times, any file name."""
    if not name.isascii():
        (tmp_path / name).write_bytes(write_video(tmp_path / "plain.mp4").read_bytes())
    else:
        write_video(tmp_path / name, **options)  # type: ignore[arg-type]
    with open_video(tmp_path / name) as reader:
        assert reader.frame_count == 60
        assert read_numbers(reader.read(ORDER)) == ORDER
        everything = reader.read(range(60))
        assert read_numbers(everything) == list(range(60))
        for number in range(0, 60, 7):
            np.testing.assert_array_equal(reader.read([number])[0], everything[number])


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_variable_frame_rate_counts_in_order(tmp_path: Path, decoder: str, suffix: str) -> None:
    gaps = np.random.default_rng(0).integers(5, 300, 50)
    times = np.concatenate([[0], np.cumsum(gaps)])[:50].tolist()
    path = write_video(tmp_path / f"variable.{suffix}", 50, times=times)
    with open_video(path, decoder) as reader:
        assert reader.frame_count == 50
        assert read_numbers(reader.read(range(0, 50, 4))) == list(range(0, 50, 4))


def test_edit_lists_hide_frames(video: Path, tmp_path: Path) -> None:
    """Frames 20 to 23 need hidden ones; decord and torchcodec do not count or give them right."""
    path = remux(video, tmp_path / "edited.mp4", shift=-512 * 20)
    with open_video(path) as reader:
        assert reader.frame_count == 40
        assert read_numbers(reader.read([0, 5, 39])) == [20, 25, 59]


@pytest.mark.parametrize(("degrees", "turns"), [(90, 1), (180, 2), (-90, 3)])
def test_rotation_is_applied(
    video: Path, tmp_path: Path, decoder: str, degrees: int, turns: int
) -> None:
    path = remux(video, tmp_path / "turned.mp4", degrees=degrees)
    with open_video(path, decoder) as turned, open_video(video, decoder) as plain:
        expected = np.rot90(plain.read([7, 30]), turns, axes=(1, 2))
        np.testing.assert_array_equal(turned.read([7, 30]), expected)


def test_truncated(tmp_path: Path) -> None:
    whole = write_video(tmp_path / "whole.mp4", container={"movflags": "faststart"}).read_bytes()
    path = tmp_path / "cut.mp4"
    path.write_bytes(whole[: len(whole) * 7 // 10])
    with pytest.raises(DecodeError, match=r"^truncated: 2\d of 60 frames are in the file$"):
        open_video(path)


def test_truncated_without_index(video: Path, tmp_path: Path, decoder: str) -> None:
    path = tmp_path / "cut.mp4"
    whole = video.read_bytes()
    for length in (len(whole) - 900, whole.index(b"moov") - 4, whole.index(b"moov") // 2):
        path.write_bytes(whole[:length])
        with pytest.raises(DecodeError, match=r"cut off|moov|decord|torchcodec"):
            open_video(path, decoder)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "0 bytes"),
        (b"not a video\n" * 50, "Invalid data"),
        (b"\0\0\0\x20ftypisom", "MP4 file that is cut off"),
    ],
)
def test_not_a_video(tmp_path: Path, decoder: str, content: bytes, reason: str) -> None:
    path = tmp_path / "bad.mp4"
    path.write_bytes(content)
    with pytest.raises(DecodeError) as caught:
        open_video(path, decoder)
    if decoder == "pyav":
        assert reason in caught.value.reason


def test_missing_folder_and_audio(tmp_path: Path, decoder: str) -> None:
    with pytest.raises(DecodeError, match="no such file"):
        open_video(tmp_path / "none.mp4", decoder)
    with pytest.raises(DecodeError, match="is a folder"):
        open_video(tmp_path, decoder)
    with pytest.raises(DecodeError) as caught:
        open_video(write_audio(tmp_path / "audio.m4a"), decoder)
    if decoder == "pyav":
        assert caught.value.reason == "no video stream"


def test_damaged_frames_are_not_given_out(tmp_path: Path) -> None:
    """A frame whose own data is damaged is refused; other groups of pictures do not notice."""

    def noise(number: int, width: int, height: int) -> NDArray[np.uint8]:
        frame = numbered_frame(number, width, height)
        still = np.random.default_rng(number // 8).integers(0, 256, frame[30:].shape)
        frame[30:] = np.roll(still, number * 3, 1)
        return frame

    path = write_video(tmp_path / "noise.mp4", make=noise)
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
        places = [(packet.pos, packet.size, packet.pts // 512) for packet in packets]
    for position, size, number in (places[24], places[30]):
        assert 24 <= number < 36
        broken = bytearray(path.read_bytes())
        half = position + size // 2
        broken[half : position + size] = bytes(position + size - half)
        (tmp_path / "broken.mp4").write_bytes(broken)
        with open_video(path) as good, open_video(tmp_path / "broken.mp4") as bad:
            assert bad.frame_count == 60
            with pytest.raises(DecodeError, match=f"^frame {number} of 60 can't be decoded$"):
                bad.read([0, number, 59])
            others = [*range(24), *range(36, 60)]
            np.testing.assert_array_equal(bad.read(others), good.read(others))


def test_reading_decodes_little_and_seeks(video: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last frames need their own group of pictures only, and never a second attempt."""
    from videomae_fast.data.decoders import decoding

    decoded = []
    decode = decoding.decode

    def counted(packet: Any) -> Any:
        decoded.append(packet)
        return decode(packet)

    monkeypatch.setattr(decoding, "decode", counted)
    with open_video(video) as reader:
        monkeypatch.setattr(reader, "_read_from_start", None)
        assert read_numbers(reader.read([50, 54, 58])) == [50, 54, 58]
        assert len(decoded) <= 13
        decoded.clear()
        assert read_numbers(reader.read([1, 50])) == [1, 50]  # jumps over three groups
        assert len(decoded) <= 24
        assert read_numbers(reader.read(range(60))) == list(range(60))


def test_a_name_that_looks_like_a_protocol(
    video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("concat:a|b.mp4").write_bytes(video.read_bytes())
    with open_video("concat:a|b.mp4") as reader:
        assert reader.frame_count == 60


def test_frames_outside_the_video(video: Path, decoder: str) -> None:
    with open_video(video, decoder) as reader:
        for ids in ([60], [-1], []):
            with pytest.raises(IndexError):
                reader.read(ids)


def test_decoders_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="pyav, decord, torchcodec"):
        find_decoder("opencv")
    monkeypatch.setattr("videomae_fast.data.decoders.decord.find_spec", lambda _: None)
    with pytest.raises(BackendUnavailableError, match=r"pip install decord$"):
        find_decoder("decord")


def test_programming_errors_are_not_hidden(video: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise TypeError("a bug")

    monkeypatch.setattr("videomae_fast.data.decoders.pyav._Converter.__call__", broken)
    with open_video(video) as reader, pytest.raises(TypeError, match="a bug"):
        reader.read([0])


def write_folder(folder: Path, count: int, first: int = 1, pattern: str = "img_{:05}.jpg") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        image = Image.fromarray(numbered_frame(number))
        image.save(folder / pattern.format(first + number), quality=95)
    return folder


def test_frame_folder(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "jpg", 20, 9601, "image_{:06}.jpg")
    with FolderReader(folder, 9601, 20, "image_{:06}.jpg") as reader:
        assert reader.frame_count == 20
        assert read_numbers(reader.read([3, 19, 0, 3])) == [3, 19, 0, 3]
    folder = write_folder(tmp_path / "png", 2, 1, "{}.png")
    with FolderReader(folder, 1, 2, "{}.png") as reader:
        np.testing.assert_array_equal(reader.read([1])[0], numbered_frame(1))


def test_frame_folder_faults(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "frames", 6)
    (folder / "img_00002.jpg").unlink()
    (folder / "img_00003.jpg").write_bytes(b"")
    whole = (folder / "img_00004.jpg").read_bytes()
    (folder / "img_00004.jpg").write_bytes(whole[: len(whole) // 2])
    Image.new("L", (20, 10)).save(folder / "img_00005.jpg")
    reader = FolderReader(folder, 1, 6)
    for ids, reason in [
        ([1], r"img_00002\.jpg is missing"),
        ([2], r"img_00003\.jpg can't be decoded"),
        ([3], r"img_00004\.jpg can't be decoded: .*[Tt]runcated"),
        ([0, 4], r"different sizes \(20x10, 112x84\)"),
    ]:
        with pytest.raises(DecodeError, match=reason):
            reader.read(ids)
    assert reader.read([4]).shape == (1, 10, 20, 3)  # grey becomes RGB
    with pytest.raises(DecodeError, match="no such folder"):
        FolderReader(tmp_path / "none", 1, 6)


def test_read_clip(video: Path, tmp_path: Path) -> None:
    clip = read_clip(video, frames=8, stride=2, start=10, image_size=(84, WIDTH))
    assert read_numbers(clip) == list(range(10, 26, 2))
    assert (
        read_numbers(read_clip(video, frames=8, stride=2, start=None, image_size=(84, WIDTH)))[0]
        == (60 - 16) // 2
    )
    assert read_clip(video, frames=4, image_size=32).shape == (4, 32, 32, 3)
    with pytest.raises(ValueError, match="start 60 lies outside"):
        read_clip(video, start=60)
    with pytest.raises(DecodeError, match=r"none\.mp4: no such file"):
        read_clip(tmp_path / "none.mp4")


def real_clips() -> list[Path]:
    return CLIPS


@pytest.mark.skipif(not real_clips(), reason="the folder of real clips is not there")
@pytest.mark.parametrize("path", real_clips(), ids=lambda path: path.name)
def test_real_clips_against_plain_decoding(path: Path) -> None:
    """Seeking gives the very frames of decoding from the start, for every codec."""
    with av.open(str(path)) as container:
        stream = container.streams.best("video")
        plain = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
    with open_video(path) as reader:
        assert reader.frame_count == len(plain)
        ids = np.random.default_rng(0).integers(0, len(plain), 8).tolist()
        for number, frame in zip(ids, reader.read(ids), strict=True):
            np.testing.assert_array_equal(frame, plain[number])


@pytest.mark.skipif(not real_clips(), reason="the folder of real clips is not there")
@pytest.mark.parametrize("name", ["decord", "torchcodec"])
def test_real_clips_are_the_same_from_each_decoder(name: str) -> None:
    usable(name)
    for path in real_clips():
        if name == "decord" and path.name == "av1_video.mkv":
            continue  # has no AV1
        if name != "pyav" and path.name == "h265_video.mp4":
            with pytest.raises(DecodeError, match="open groups"):
                open_video(path, name)
            continue
        with open_video(path) as expected, open_video(path, name) as reader:
            count = expected.frame_count
            assert reader.frame_count == count
            ids = list(range(count // 4, count, max(1, count // 16)))
            first, second = expected.read(ids), reader.read(ids)
        if "10bits" in path.name:  # chroma is filtered differently above 8 bits
            assert np.abs(first.astype(int) - second).mean() < 5
        else:
            np.testing.assert_array_equal(first, second)


def test_no_picture_waits_for_the_collector_of_cycles(tmp_path: Path) -> None:
    """A frame of 8K that does takes 50 MB, in each process, until the collector comes by."""
    path = write_video(tmp_path / "clip.mp4", 20)
    with open_video(path) as video:  # what is made once
        video.read([3])
    gc.collect()
    gc.disable()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        with open_video(path) as video:
            video.read([3, 7])
        del video
        gc.collect()
        assert [type(kept).__name__ for kept in gc.garbage if "av." in type(kept).__module__] == []
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()
