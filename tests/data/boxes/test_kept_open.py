"""A video stays open from one key frame to the next, as long as it is the same file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support.videos import numbered_frame, read_numbers, write_video
from videomae_fast.data.boxes.clips import KeyFrameClips, key_frame_reading
from videomae_fast.data.boxes.detection_views import DetectionViews
from videomae_fast.data.boxes.entries import read_key_frames
from videomae_fast.data.boxes.kept_open import kept_open
from videomae_fast.data.decoders import DECODERS, Decoder, VideoReader
from videomae_fast.data.errors import DecodeError
from videomae_fast.data.reading import read
from videomae_fast.recipes.box_source import BoxSource


class Opened(list[VideoReader]):
    """What was opened, and what of it is closed."""

    def __init__(self) -> None:
        super().__init__()
        self.closed: list[VideoReader] = []
        self.decoder = Decoder("pyav", self.open, lambda: None)
        self._open = DECODERS["pyav"].open

    def open(self, path: Path) -> VideoReader:
        video = self._open(path)
        close = video.close
        video.close = lambda: (self.closed.append(video), close())[1]  # type: ignore[method-assign]
        self.append(video)
        return video


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> Opened:
    made = Opened()
    monkeypatch.setitem(DECODERS, "pyav", made.decoder)
    return made


def test_key_frames_of_a_video_open_it_once(tmp_path: Path, opened: Opened) -> None:
    for name in "ab":
        write_video(tmp_path / f"{name}.mp4", 100)
    keys = [("a", 1), ("a", 3), ("a", 2), ("b", 1), ("b", 2), ("a", 1)]
    lines = "".join(f"{video},{second}.{at},0,0,1,1,1\n" for at, (video, second) in enumerate(keys))
    (tmp_path / "a.csv").write_text(lines)
    source = BoxSource(tmp_path / "a.csv", tmp_path, fps=25.0)
    reading = key_frame_reading(frames=4, views=DetectionViews(84, 64), training=False)
    clips = KeyFrameClips([read_key_frames(source, 1, 0.8)], reading, stride=2)
    for draw in clips.every():
        result = read(clips.request(draw), reading)
        assert read_numbers(result.data[0]) == list(result.ids)
    assert len(opened) == 3
    assert opened.closed == opened[:2]


def test_a_changed_file_and_a_failed_read_are_opened_anew(tmp_path: Path, opened: Opened) -> None:
    path = write_video(tmp_path / "a.mp4", 20)

    def first() -> int:
        with kept_open(path, DECODERS["pyav"]) as video:
            return read_numbers(video.read([0]))[0]

    assert (first(), first(), len(opened)) == (0, 0, 1)
    later = write_video(tmp_path / "b.mp4", 20, make=lambda n, *size: numbered_frame(n + 5, *size))
    later.replace(path)
    assert (first(), first(), len(opened)) == (5, 5, 2)
    with pytest.raises(IndexError), kept_open(path, DECODERS["pyav"]) as video:
        video.read([99])
    assert opened.closed == opened[:2]
    assert (first(), len(opened)) == (5, 3)
    path.unlink()
    for _ in range(2):
        with pytest.raises(DecodeError, match="no such file"):
            first()
    assert opened.closed == opened[:3]


def test_a_forked_process_has_its_own(
    tmp_path: Path, opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_video(tmp_path / "a.mp4", 20)
    for expected in (1, 1):
        with kept_open(path, DECODERS["pyav"]):
            assert len(opened) == expected
    monkeypatch.setattr("os.getpid", lambda: 7)
    with kept_open(path, DECODERS["pyav"]):
        assert len(opened) == 2


def test_threads_have_their_own(tmp_path: Path, opened: Opened) -> None:
    from concurrent.futures import ThreadPoolExecutor

    path = write_video(tmp_path / "a.mp4", 20)

    def use(_: Any) -> VideoReader:
        with kept_open(path, DECODERS["pyav"]) as video:
            return video

    mine = use(0)
    with ThreadPoolExecutor(1) as pool:
        (theirs,) = pool.map(use, [0])
    assert theirs is not mine
    assert use(0) is mine
