"""The demo's videos: real files, moving, textured, varied, and the same every time."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest

from videomae_fast.data import load_list, open_video
from videomae_fast.demo.scenes import SCENES, frames
from videomae_fast.demo.videos import DemoError, find_videos, render_videos, write_list


def video(index: int, seed: int = 0, count: int = 12) -> np.ndarray:
    return np.stack(list(frames(seed, index, size=48, count=count, fps=4)))


@pytest.mark.parametrize("index", range(len(SCENES)), ids=lambda i: SCENES[i].__name__)
def test_every_scene_moves_and_has_structure(index: int) -> None:
    clip = video(index).astype(float)
    assert clip.shape == (12, 48, 48, 3)
    moved = np.abs(np.diff(clip, axis=0)).mean(axis=(1, 2, 3))
    assert moved.min() > 0.5
    assert np.abs(clip[-1] - clip[0]).mean() > 5
    assert clip.std(axis=(1, 2)).max() > 20
    assert clip.std(axis=(1, 2)).min(axis=0).max() > 8


def test_videos_are_a_function_of_seed_and_index_and_differ() -> None:
    first = video(3)
    assert (video(3) == first).all()
    for other in (video(3, seed=1), video(3 + len(SCENES))):
        assert np.abs(other.astype(float) - first).mean() > 5


def test_files_are_h264_and_hold_the_pictures(tmp_path: Path) -> None:
    paths = render_videos(tmp_path, 2, size=64, seconds=1.0, fps=12)
    for index, path in enumerate(paths):
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            assert stream.codec_context.name == "h264"
            assert (stream.width, stream.height, stream.frames) == (64, 64, 12)
        with open_video(path) as reader:
            decoded = reader.read(list(range(12))).astype(float)
        drawn = np.stack(list(frames(0, index, size=64, count=12, fps=12))).astype(float)
        assert np.sqrt(((decoded - drawn) ** 2).mean()) < 12
    assert not list(tmp_path.glob("*.part"))


def test_files_that_exist_are_kept_and_unfinished_ones_are_not_taken_for_done(
    tmp_path: Path,
) -> None:
    (path,) = render_videos(tmp_path, 1, size=32, seconds=0.5)
    path.with_name(path.name + ".part").write_bytes(b"left by a kill")
    before = path.stat().st_mtime_ns
    assert render_videos(tmp_path, 1, size=32, seconds=0.5) == [path]
    assert path.stat().st_mtime_ns == before
    path.unlink()
    render_videos(tmp_path, 1, size=32, seconds=0.5)
    with open_video(path) as reader:
        assert reader.frame_count == 12


def test_videos_of_a_folder_are_found_in_folders_below(tmp_path: Path) -> None:
    for name in ("b.mp4", "a/c.MKV", "a/d.webm", "a/notes.txt", "a/e.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    found = [str(path.relative_to(tmp_path)) for path in find_videos(tmp_path)]
    assert found == ["a/c.MKV", "a/d.webm", "b.mp4"]


def test_folder_without_videos_and_no_folder_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(DemoError, match=r"no videos in it.*\.mkv"):
        find_videos(tmp_path)
    with pytest.raises(DemoError, match="no such folder"):
        find_videos(tmp_path / "nothing")


def test_list_is_the_official_format_also_with_spaces(tmp_path: Path) -> None:
    videos = [tmp_path / "my clips" / "one 1.mp4", tmp_path / "two.mp4"]
    write_list(tmp_path / "lists" / "train.txt", videos)
    entries = load_list(tmp_path / "lists" / "train.txt")
    assert [entries[i].path for i in range(len(entries))] == [str(v) for v in videos]
    assert all(entries[i].is_video for i in range(len(entries)))
    with pytest.raises(DemoError, match="one path per line"):
        write_list(tmp_path / "x.txt", [tmp_path / "a\nb.mp4"])
