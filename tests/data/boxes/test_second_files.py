"""Videos as a file per second: clips around a key frame as in the video that they were cut from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.support.videos import numbered_frame, read_numbers, write_video
from videomae_fast.data.boxes.clips import KeyFrameClips, key_frame_reading
from videomae_fast.data.boxes.detection_views import DetectionViews
from videomae_fast.data.boxes.entries import read_key_frames
from videomae_fast.data.boxes.second_files import SecondFiles, second_files
from videomae_fast.data.decoders import open_video
from videomae_fast.data.errors import DecodeError, ListError
from videomae_fast.data.reading import ReadResult, read
from videomae_fast.recipes.box_source import BoxSource

RATE = 25
GOLDEN = Path(__file__).parents[2] / "golden"


def write_second(path: Path, second: int, frames: int = RATE, **more: Any) -> None:
    """Frames are numbered on from one second to the next."""
    path.parent.mkdir(exist_ok=True)
    begin = second * RATE
    write_video(
        path, frames, make=lambda n, *size: numbered_frame(n + begin, *size), options={}, **more
    )


@pytest.fixture(scope="module")
def movie(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seconds 2 to 6 of a movie, one as images, and the whole of it beside them."""
    root = tmp_path_factory.mktemp("seconds")
    for second, name in ((2, "2"), (3, "0003"), (4, "4"), (6, "6")):
        write_second(root / "m" / f"{name}.mp4", second)
    (root / "m/5").mkdir()
    for number in range(RATE):
        frame = numbered_frame(5 * RATE + number)
        Image.fromarray(frame).save(root / f"m/5/m_{number:03}.png")
    (root / "m/notes.txt").touch()
    (root / "m/cover.mp4").touch()
    write_second(root / "whole.mp4", 2, 5 * RATE)
    return root


def clips(root: Path, line: str, *, stride: int = 4, frames: int = 16, **more: Any) -> ReadResult:
    (root / "a.csv").write_text(f"{line},0.25,0.25,0.75,0.75,1\n")
    given: dict[str, Any] = {"per_second": True, "name_pattern": "{video}_{:03}.png"}
    source = BoxSource(root / "a.csv", root, **{**given, "first_frame": 0, **more})
    views = DetectionViews(84, 64)
    reading = key_frame_reading(frames=frames, views=views, training=False)
    made = KeyFrameClips([read_key_frames(source, 1, 0.8)], reading, stride=stride)
    return read(made.request(made.every()[0]), made.reading)


@pytest.mark.parametrize("time", ["0002", "0003", "4", "4.52", "5", "0006", "6.96"])
@pytest.mark.parametrize(("frames", "stride"), [(16, 4), (4, 1), (8, 8)])
def test_a_clip_is_that_of_the_whole_video(
    time: str, frames: int, stride: int, movie: Path
) -> None:
    how = {"frames": frames, "stride": stride}
    cut = clips(movie, f"m,{time}", **how)
    whole = clips(movie, f"whole,{time}", **how, per_second=False, begin=2.0)
    found = read_numbers(cut.data[0])
    assert found == read_numbers(whole.data[0])
    key = round(float(time) * RATE)
    offset = (stride - 1) // 2 - frames * stride // 2
    expected = [key + offset + i * stride for i in range(frames)]
    assert found == np.clip(expected, 2 * RATE, 7 * RATE - 1).tolist()


@pytest.mark.parametrize("frames", [8, 16])
def test_frames_are_the_official_ones(frames: int, movie: Path) -> None:
    """Of as many frames on both sides as the official code cuts its files to."""
    cases = json.loads((GOLDEN / "downstream_ava_eval.json").read_text())["temporal_crop"]
    (case,) = [
        one for one in cases if (one["frames_per_second_file"], one["num_frames"]) == (RATE, frames)
    ]
    found = read_numbers(clips(movie, "m,0004", frames=frames, stride=case["rate"]).data[0])
    assert [number - 4 * RATE + case["key_frame"] for number in found] == case["ids"]


def test_frames_by_number(movie: Path) -> None:
    with SecondFiles(movie / "m", 4.0, 30, open_part) as video:
        assert (video.key, video.frame_count) == (50, 100)
        assert video.numbered_by_decoding is None
        ids = [99, 0, 49, 50, 0, 24, 25]
        assert read_numbers(video.read(ids)) == [50 + number for number in ids]
        with pytest.raises(IndexError):
            video.read([100])
    with SecondFiles(movie / "m", 4.0, 1, open_part) as video:
        assert video.frame_count == 2 * RATE  # no more files than are needed
    assert sorted(second_files(movie / "m")) == [2, 3, 4, 5, 6]


def open_part(path: Path) -> Any:
    from videomae_fast.data.decoders import FolderReader

    return FolderReader(path, 0, RATE, "m_{:03}.png") if path.is_dir() else open_video(path)


def test_what_is_missing_or_damaged_is_named(tmp_path: Path) -> None:
    root = tmp_path
    for second in (2, 3, 5):
        write_second(root / "m" / f"{second}.mp4", second)
    with pytest.raises(DecodeError, match=r"^second 4, which its clip needs, is missing between"):
        clips(root, "m,3")
    with pytest.raises(DecodeError, match="second 4, which its clip"):
        clips(root, "m,5")
    with pytest.raises(ListError, match=r"named as VIDEO/SECOND\.mp4, with root=FOLDER"):
        clips(root, "m,4")
    (root / "m/4.mp4").write_bytes(b"no video")
    second_files.cache_clear()
    with pytest.raises(DecodeError, match=r"^4\.mp4: "):
        clips(root, "m,3")
    write_second(root / "m/4.mp4", 4, size=(128, 96))
    with pytest.raises(DecodeError, match=r"of different sizes \(112x84, 128x96\)"):
        clips(root, "m,3")


def test_a_missing_second_of_a_video_that_is_there_is_one_failure(tmp_path: Path) -> None:
    write_second(tmp_path / "m/2.mp4", 2)
    (tmp_path / "a.csv").write_text("m,2,0,0,1,1,1\nm,7,0,0,1,1,1\n")
    source = BoxSource(tmp_path / "a.csv", tmp_path, per_second=True)
    reading = key_frame_reading(frames=4, views=DetectionViews(84, 64), training=False)
    made = KeyFrameClips([read_key_frames(source, 1, 0.8)], reading, stride=1)
    first, second = map(made.request, made.every())
    read(first, reading)
    assert second.file == tmp_path / "m/7.mp4"
    with pytest.raises(DecodeError, match="no such file"):
        read(second, reading)


@pytest.mark.parametrize("other", [{"begin": 900.0}, {"trimmed": True}, {"fps": 30.0}])
def test_two_times_of_a_file_are_refused(other: dict[str, Any]) -> None:
    (name,) = other
    with pytest.raises(ValueError, match=f"per_second says when each file is, and {name} another"):
        BoxSource("a.csv", per_second=True, **other)
