"""Parts of long videos for a device that decodes: the same frames, and few bytes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from tests.support.videos import GOP, X264, write_video
from videomae_fast.data import reading
from videomae_fast.data.boxes.clips import KeyFrameClips, key_frame_reading
from videomae_fast.data.boxes.detection_views import DetectionViews
from videomae_fast.data.boxes.entries import read_key_frames
from videomae_fast.data.decoders import excerpt as excerpts
from videomae_fast.data.decoders.content import VideoBytes
from videomae_fast.data.decoders.excerpt import excerpt
from videomae_fast.data.decoders.pyav import PyAVReader
from videomae_fast.data.device.frames import DeviceFrames
from videomae_fast.data.reading import read
from videomae_fast.recipes.box_source import BoxSource

LIVE = {"g": str(GOP), "deadline": "realtime", "cpu-used": "8"}
HEVC = {"x265-params": f"keyint={GOP}:min-keyint={GOP}:open-gop=0:scenecut=0:log-level=error"}
KINDS = {
    "h264.mp4": ("libx264", X264),
    "h264.mkv": ("libx264", X264),
    "hevc.mp4": ("libx265", HEVC),
    "vp9.webm": ("libvpx-vp9", LIVE),
    "vp9.mp4": ("libvpx-vp9", LIVE),
    "vp8.mkv": ("libvpx", LIVE),
    "mpeg4.mp4": ("mpeg4", {"g": str(GOP)}),
}
FRAMES = 66  # the last group is cut short


def noise(number: int, width: int, height: int) -> NDArray[np.uint8]:
    """Nothing that a codec could leave out."""
    return np.random.default_rng(number).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.fixture(scope="module", params=KINDS)
def video(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    codec, options = KINDS[request.param]
    path = tmp_path_factory.mktemp("excerpt") / str(request.param)
    return write_video(path, FRAMES, codec=codec, options=options)


def test_a_part_has_the_very_frames(video: Path) -> None:
    with PyAVReader(video) as whole:
        assert whole.why_only_here() is None
        keys = [*whole.key_frames, FRAMES]
        for ids in ((0, 5), (30, 26, 26), (keys[1], keys[2] - 1), (20, 40), (FRAMES - 1,)):
            part = excerpt(whole, ids)
            assert part is not None
            first = max(key for key in keys if key <= min(ids))
            end = min(key for key in keys if key > max(ids))
            assert (part.first, part.frame_count) == (first, end - first)
            content = VideoBytes(video.name, part.data.tobytes(), 0)
            with PyAVReader(content) as alone:
                assert alone.frame_count == part.frame_count
                assert alone.why_only_here() is None
                found = alone.read([number - part.first for number in ids])
                assert np.array_equal(found, whole.read(ids))
                assert len(list(alone.decode_all())) == part.frame_count
        assert excerpt(whole, (0, FRAMES - 1)) is None  # all of it


def test_what_can_not_be_copied_is_handed_over_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_video(tmp_path / "a.mp4", FRAMES)
    with PyAVReader(path) as whole:
        assert excerpt(whole, (30,)) is not None
        monkeypatch.setattr(excerpts, "_MP4", {"brand": "", "movflags": "nothing"})
        assert excerpt(whole, (30,)) is None


def test_a_variable_frame_rate(tmp_path: Path) -> None:
    times = np.cumsum([40, 10, 200, 33] * 15).tolist()
    path = write_video(tmp_path / "v.mp4", 60, times=times)
    with PyAVReader(path) as whole:
        part = excerpt(whole, (37, 40))
        assert part is not None
        with PyAVReader(VideoBytes("part.mp4", part.data.tobytes(), 0)) as alone:
            shifted = [37 - part.first, 40 - part.first]
            assert np.array_equal(alone.read(shifted), whole.read([37, 40]))


def bytes_read() -> int:
    """Of this process, by all its system calls."""
    told = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return int(told["rchar"])


@pytest.fixture
def movie(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> KeyFrameClips:
    """Four key frames of one video of 1 MB."""
    monkeypatch.setattr(reading, "WHOLE_BYTES", 1 << 18)
    options = {"g": str(GOP), "qscale": "2"}
    write_video(tmp_path / "m.mp4", 450, codec="mpeg4", options=options, make=noise)
    (tmp_path / "a.csv").write_text("".join(f"m,{4 * i + 2},0,0,1,1,1\n" for i in range(4)))
    source = BoxSource(tmp_path / "a.csv", tmp_path, fps=25.0)
    settings = key_frame_reading(frames=4, views=DetectionViews(84, 64), training=False)
    settings = replace(settings, hand_over="encoded", codecs=frozenset({"mpeg4"}))
    return KeyFrameClips([read_key_frames(source, 1, 0.8)], settings, stride=2)


def test_a_movie_is_not_read_for_each_of_its_key_frames(movie: KeyFrameClips) -> None:
    size, spent = 0, []
    plain = replace(movie.reading, hand_over="frames")
    for draw in movie.every():
        request = movie.request(draw)
        assert isinstance(request.file, Path)
        size = request.file.stat().st_size
        assert size > reading.WHOLE_BYTES
        before = bytes_read()
        result = read(request, movie.reading)
        spent.append(bytes_read() - before)
        assert result.kind == "encoded"
        assert result.data.nbytes < size / 8
        assert result.part is not None
        decoded = read(request, plain)
        assert result.ids == decoded.ids  # of the whole video, for the names in messages
        first, count = result.part
        with PyAVReader(VideoBytes("part.mp4", result.data.tobytes(), 0)) as alone:
            assert alone.frame_count == count
            assert np.array_equal(
                alone.read([number - first for number in result.ids]), decoded.data
            )
    assert spent[0] >= size  # all packets, once
    assert max(spent[1:]) < size / 8


def test_a_device_gets_the_numbers_of_the_part(movie: KeyFrameClips) -> None:
    class Asked:
        def decode(self, clips):
            (self.clip,) = clips
            with PyAVReader(VideoBytes("part.mp4", self.clip.data.numpy().tobytes(), 0)) as part:
                assert part.frame_count == self.clip.frame_count
                return [torch.from_numpy(part.read(self.clip.ids))]

        def close(self):
            pass

    decoder = Asked()
    request = movie.request(movie.every()[2])
    frames = DeviceFrames(torch.device("cpu"), decoder, movie.reading.fits)
    decoded, failed = frames([read(request, movie.reading)])
    assert not failed
    expected = read(request, replace(movie.reading, hand_over="frames")).data
    assert np.array_equal(decoded[0].numpy(), expected)
    assert max(decoder.clip.ids) < decoder.clip.frame_count < 60


def test_a_small_file_is_handed_over_as_it_is(
    movie: KeyFrameClips, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "WHOLE_BYTES", 1 << 30)
    request = movie.request(movie.every()[1])
    result = read(request, movie.reading)
    assert isinstance(request.file, Path)
    assert result.part is None
    assert result.data.tobytes() == request.file.read_bytes()
