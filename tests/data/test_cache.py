"""The cache: the decoder's frames, the limit, and what keeps a video out of it."""

from __future__ import annotations

import errno
import gc
import os
import pickle
import resource
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from tests.support.made_videos import (
    Made,
    entries,
    made,
    partials,
    read,
    read_right,
    size_of,
    taken,
    total,
    truth,
)
from tests.support.videos import remux, write_audio, write_video
from videomae_fast.data import DECODERS, CacheCounts, CachedVideos, DecodeError
from videomae_fast.data.cache import space as space_module
from videomae_fast.data.cache import videos as videos_module
from videomae_fast.data.cache.space import FULL
from videomae_fast.data.cache.videos import UNDECODABLE, cache_at
from videomae_fast.data.decoders import Decoder, Frames
from videomae_fast.errors import UsageError

PYAV = DECODERS["pyav"]
GB = 10**9


@pytest.mark.parametrize("decoder", ["pyav", "decord"])
def test_frames_are_the_decoders(clips: Path, tmp_path: Path, decoder: str) -> None:
    if DECODERS[decoder].why_not() is not None:
        pytest.skip(f"{decoder} can't be used here")
    by, cache = DECODERS[decoder], CachedVideos(tmp_path / "cache", GB)
    for path in sorted(clips.glob("*.mp4"))[:3]:
        with by.open(path) as video:
            last = video.frame_count - 1
        for ids in ([last], range(0, 16, 3), [5, 5, 6, 7, 0, last, 2], range(last + 1)):
            frames = read(cache, path, ids, by)
            assert frames.dtype == np.uint8
            np.testing.assert_array_equal(frames, truth(path, ids, by))
            assert frames.flags.writeable
        with cache.open(path, by) as video:
            assert video.frame_count == last + 1
            for wrong in ([], [-1], [last + 1]):
                with pytest.raises(IndexError):
                    video.read(wrong)
    counts = cache.take_counts()
    assert (counts.hits, counts.misses, counts.filled) == (12, 3, 3)
    assert counts.filled_bytes == taken(tmp_path / "cache") == total(tmp_path / "cache")
    assert not counts.not_filled
    assert cache.counts == CacheCounts()


def test_a_rotated_video_is_cached_as_it_is_shown(tmp_path: Path) -> None:
    path = remux(write_video(tmp_path / "a.mp4", 20), tmp_path / "b.mp4", degrees=90)
    cache = CachedVideos(tmp_path / "cache", GB)
    for _ in range(2):
        np.testing.assert_array_equal(
            read(cache, path, range(20), PYAV), truth(path, range(20), PYAV)
        )
    assert cache.counts.hits == 1


def test_a_hit_opens_no_decoder_and_a_long_video_is_filled_in_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(videos_module, "_CHUNK_BYTES", 4 * 7 * 5 * 3 + 1)  # 4, 4 and 1 frames
    path, cache = made(tmp_path, 1), CachedVideos(tmp_path / "cache", GB)
    read(cache, path)
    assert Made.opened == 2  # for the clip, and for the entry
    frames = read(cache, path, range(9))
    assert Made.opened == 2
    np.testing.assert_array_equal(frames, truth(path, range(9)))


def test_without_fill_entries_are_read_and_none_is_made(tmp_path: Path) -> None:
    path, other, folder = made(tmp_path, 1), made(tmp_path, 2), tmp_path / "cache"
    reading = CachedVideos(folder, GB, fill=False)
    read(reading, path)
    assert not folder.exists()
    read(CachedVideos(folder, GB), path)
    read(reading, path)
    read(reading, other)
    assert (reading.counts.hits, reading.counts.misses) == (1, 2)
    assert len(entries(folder)) == 1


def test_pickling_keeps_the_settings_and_counts_add_up(tmp_path: Path) -> None:
    cache = CachedVideos(tmp_path / "cache", 1234, fill=False)
    read(cache, made(tmp_path, 1))
    copy = pickle.loads(pickle.dumps(cache))
    assert (copy.folder, copy.limit_bytes, copy.fill) == (tmp_path / "cache", 1234, False)
    assert copy.counts == CacheCounts()
    one = CacheCounts(1, 2, 3, 4, 5, Counter(a=1), 6)
    both = one + pickle.loads(pickle.dumps(CacheCounts(10, 20, 30, 40, 50, Counter(a=1, b=2), 60)))
    assert both == CacheCounts(11, 22, 33, 44, 55, Counter(a=2, b=2), 66)
    with pytest.raises(ValueError, match="at least 0"):
        CachedVideos(tmp_path, -1)


@pytest.mark.parametrize("below", ["", "frames"], ids=["itself", "above it"])
def test_a_file_in_the_place_of_the_folder(tmp_path: Path, below: str) -> None:
    file = tmp_path / "file"
    file.touch()
    expected = r"file/frames can't be made, as \S+/file is a file" if below else r"file is a file"
    with pytest.raises(UsageError, match=rf"the cache \S+/{expected}: name a folder"):
        cache_at(str(file / below), 1.0)


def test_a_changed_video_replaces_its_entry(tmp_path: Path) -> None:
    path, folder = made(tmp_path, 1), tmp_path / "cache"
    cache = CachedVideos(folder, GB)
    read(cache, path)
    first = total(folder)
    path.write_text("9 7 5 2")  # as large as before
    os.utime(path, ns=(1, 1))
    np.testing.assert_array_equal(read(cache, path, [3]), truth(path, [3]))
    np.testing.assert_array_equal(read(cache, path, [3]), truth(path, [3]))
    assert (cache.counts.hits, cache.counts.misses, cache.counts.filled) == (1, 2, 2)
    path.write_text("19 7 5 3")
    read(cache, path)
    assert len(entries(folder)) == 1
    assert total(folder) == taken(folder) == first + 10 * (7 * 5 * 3 + 4)


def test_another_decoder_or_path_is_another_entry_and_a_link_is_not(tmp_path: Path) -> None:
    path, cache = made(tmp_path, 1), CachedVideos(tmp_path / "cache", GB)
    (tmp_path / "link").symlink_to(path)
    copy = shutil.copy2(path, tmp_path / "copy.made")
    read(cache, path)
    read(cache, tmp_path / "link")
    assert cache.counts.hits == 1
    read(cache, Path(copy))
    read(cache, path, by=Decoder("other", Made, lambda: None))
    assert (cache.counts.hits, cache.counts.misses) == (1, 3)


def test_a_path_that_is_long_and_no_text(tmp_path: Path) -> None:
    folder = tmp_path
    for _ in range(8):
        folder = folder / ("ü" * 100)
    folder.mkdir(parents=True)
    path = made(folder, 1).rename(folder / os.fsdecode(b"\xff .made"))
    cache = CachedVideos(tmp_path / "cache", GB)
    for _ in range(2):
        np.testing.assert_array_equal(read(cache, path), truth(path))
    assert cache.counts.hits == 1
    assert entries(tmp_path / "cache")[0].stat().st_size == 2 * 4096 + 9 * 7 * 5 * 3 + 10 * 4


def test_the_limit_is_kept_to_the_byte(tmp_path: Path) -> None:
    paths = [made(tmp_path, seed, count=5 + seed) for seed in range(3)]
    for room in (0, -1):
        folder = tmp_path / f"cache{room}"
        cache = CachedVideos(folder, sum(map(size_of, paths)) + room)
        for path in paths:
            np.testing.assert_array_equal(read(cache, path), truth(path))
        assert cache.counts.filled == 3 + room
        assert cache.counts.not_filled == (Counter({FULL: 1}) if room else Counter())
        assert taken(folder) == total(folder) <= cache.limit_bytes
        assert not partials(folder)
    smaller = made(tmp_path, 9, count=1)  # still fits where the last one didn't
    read(cache, smaller, [0])
    assert cache.counts.filled == 3


def test_an_old_entry_makes_room_for_its_successor(tmp_path: Path) -> None:
    path, folder = made(tmp_path, 1), tmp_path / "cache"
    frame = 7 * 5 * 3 + 4  # with its checksum
    cache = CachedVideos(folder, size_of(path) + frame - 1)
    read(cache, path)
    os.utime(path, ns=(1, 1))
    read(cache, path)
    assert cache.counts.filled == 2
    path.write_text("10 7 5 1")  # one byte too much, and the old one is of no use
    read(cache, path)
    assert cache.counts.not_filled == {FULL: 1}
    assert not entries(folder)
    assert total(folder) == 0


def test_bad_videos_are_told_as_without_a_cache(tmp_path: Path) -> None:
    (tmp_path / "empty.mp4").touch()
    write_audio(tmp_path / "sound.mp4")
    (tmp_path / "folder").mkdir()
    folder = tmp_path / "cache"
    cache = CachedVideos(folder, GB)
    for name in ("empty.mp4", "sound.mp4", "folder", "missing.mp4"):
        with pytest.raises(DecodeError) as alone:
            PYAV.open(tmp_path / name)
        for _ in range(2):
            with pytest.raises(DecodeError) as cached:
                cache.open(tmp_path / name, PYAV)
            assert cached.value.reason == alone.value.reason
    assert cache.counts == CacheCounts()
    assert not folder.exists()


def test_a_video_with_a_bad_frame_is_not_cached_and_tried_once(tmp_path: Path) -> None:
    path = tmp_path / "bad.made"
    path.write_text("9 7 5 1 6")
    folder = tmp_path / "cache"
    cache = CachedVideos(folder, GB)
    for _ in range(3):
        np.testing.assert_array_equal(read(cache, path), truth(path))
        with pytest.raises(DecodeError, match="frame 6 of 9"):
            read(cache, path, [6])
    assert cache.counts.not_filled == {UNDECODABLE: 3}
    assert Made.opened == 3 * 3 + 1  # one more: the one try to fill
    assert taken(folder) == total(folder) == 0
    path.write_text("9 7 5 1")  # mended
    read(cache, path)
    assert cache.counts.filled == 1


def test_a_video_that_changes_while_it_is_filled_is_not_cached(tmp_path: Path) -> None:
    path = made(tmp_path, 1)

    class Changing(Made):
        def read(self, ids: Sequence[int]) -> Frames:
            if len(ids) == self.frame_count:
                os.utime(path, ns=(5, 5))
            return super().read(ids)

    cache = CachedVideos(tmp_path / "cache", GB)
    read(cache, path, by=Decoder("changing", Changing, lambda: None))
    assert cache.counts.not_filled == {videos_module.CHANGED: 1}
    assert taken(tmp_path / "cache") == total(tmp_path / "cache") == 0


@pytest.mark.parametrize(
    "error", [OSError(5, "Input/output error"), MemoryError(), KeyError("comment")]
)
@pytest.mark.parametrize("place", ["open", "read"])
def test_what_a_video_makes_a_library_raise_is_not_the_folders(
    tmp_path: Path, error: Exception, place: str
) -> None:
    """It was taken for a folder that can't be written, which ends the filling of all others."""
    path = made(tmp_path, 1)

    class Raising(Made):
        def __init__(self, path: Path) -> None:
            super().__init__(path)
            if place == "open" and Made.opened == 2:  # to fill the entry
                raise error

        def read(self, ids: Sequence[int]) -> Frames:
            if len(ids) == self.frame_count:
                raise error
            return super().read(ids)

    cache = CachedVideos(tmp_path / "cache", GB)
    read(cache, path, by=Decoder("raising", Raising, lambda: None))
    assert cache.counts.not_filled == {UNDECODABLE: 1}
    assert taken(tmp_path / "cache") == total(tmp_path / "cache") == 0
    read(cache, path)
    assert cache.counts.filled == 1


def test_a_video_that_vanishes_while_it_is_filled_is_not_cached(tmp_path: Path) -> None:
    path = made(tmp_path, 1)

    class Vanishing(Made):
        def read(self, ids: Sequence[int]) -> Frames:
            if len(ids) == self.frame_count:
                path.unlink()
            return super().read(ids)

    cache = CachedVideos(tmp_path / "cache", GB)
    read(cache, path, by=Decoder("vanishing", Vanishing, lambda: None))
    assert cache.counts.not_filled == {videos_module.CHANGED: 1}


@pytest.mark.parametrize("call", ["posix_fallocate", "write", "fsync"])
def test_a_full_disk_stops_filling_with_one_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    paths, folder = [made(tmp_path, seed) for seed in range(4)], tmp_path / "cache"
    cache = CachedVideos(folder, GB)
    read(cache, paths[0])

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(space_module.os, call, full)
    with pytest.warns(RuntimeWarning) as told:
        read_right(cache, paths)
    assert len(told) == 1
    reason = f"{folder}: can't be filled: No space left on device"
    assert reason in str(told[0].message)
    assert cache.counts.not_filled == {reason: 3}
    assert (cache.counts.hits, cache.counts.filled) == (1, 1)
    assert not partials(folder)
    assert taken(folder) == total(folder) == size_of(paths[0])


def test_a_file_system_that_can_take_no_room_beforehand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_such_call(*_: object) -> None:
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

    monkeypatch.setattr(space_module.os, "posix_fallocate", no_such_call)
    path, cache = made(tmp_path, 1), CachedVideos(tmp_path / "cache", GB)
    read(cache, path)
    np.testing.assert_array_equal(read(cache, path), truth(path))
    assert cache.counts.hits == 1


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A temporary folder that other users can enter."""
    with tempfile.TemporaryDirectory() as name:
        os.chmod(name, 0o755)
        yield Path(name)


def test_a_folder_that_may_only_be_read(open_folder: Path) -> None:
    paths, folder = [made(open_folder, seed) for seed in range(3)], open_folder / "cache"
    read(CachedVideos(folder, GB), paths[0])
    cache = CachedVideos(folder, GB)
    folder.chmod(0o555)
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)  # root may write anywhere
    try:
        with pytest.warns(RuntimeWarning, match="can't be filled: Permission denied") as told:
            read_right(cache, paths)
        folder_is_a_file = CachedVideos(paths[0], GB)
        with pytest.warns(RuntimeWarning, match="Not a directory|File exists"):
            read_right(folder_is_a_file, paths)
    finally:
        if root:
            os.seteuid(0)
        folder.chmod(0o755)
    assert len(told) == 1
    assert (cache.counts.hits, cache.counts.misses) == (1, 2)


@pytest.mark.parametrize("content", ["", "nonsense", "9" * 40, None])
def test_the_total_is_made_anew_where_it_is_lost(tmp_path: Path, content: str | None) -> None:
    paths, folder = [made(tmp_path, seed) for seed in range(3)], tmp_path / "cache"
    limit = 2 * size_of(paths[0])
    cache = CachedVideos(folder, limit)
    read(cache, paths[0])
    if content is None:
        (folder / "total").unlink()
    else:
        (folder / "total").write_text(content)
    for path in paths[1:]:
        read(cache, path)
    assert cache.counts.filled == 2
    assert total(folder) == taken(folder) == limit


def test_what_was_added_or_removed_by_others_counts_for_the_next_process(tmp_path: Path) -> None:
    paths, folder = [made(tmp_path, seed) for seed in range(3)], tmp_path / "cache"
    limit = 2 * size_of(paths[0])
    for path in paths[:2]:
        read(CachedVideos(folder, limit), path)
    entries(folder)[0].unlink()
    (folder / "notes.txt").write_text("no frames")
    (folder / "total").write_text(f"{5:020}")
    read(CachedVideos(folder, limit), paths[2])
    assert total(folder) == taken(folder) == limit


def test_thousands_of_reads_hold_neither_files_nor_memory(tmp_path: Path) -> None:
    paths, folder = [made(tmp_path, seed, 16, 64, 64) for seed in range(5)], tmp_path / "cache"
    cache = CachedVideos(folder, 4 * size_of(paths[0]))

    def work(times: int) -> None:
        for index in range(times):
            read(cache, paths[index % 4], range(0, 16, 2))
        read(cache, paths[4])  # no room

    def state() -> tuple[int, int, int]:
        gc.collect()
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        maps = Path("/proc/self/maps").read_text().count("\n")
        return len(os.listdir("/proc/self/fd")), pages * resource.getpagesize(), maps

    work(500)
    states = [state()]
    for _ in range(2):
        work(2000)
        states.append(state())
    files, memory, maps = zip(*states, strict=True)
    assert files[0] == files[2]
    # What leaks, leaks both times; other things of the process may take memory once
    assert min(memory[1] - memory[0], memory[2] - memory[1]) < 4 << 20
    assert maps[2] - maps[0] < 8
    assert cache.counts.hits == 4500 - 4
