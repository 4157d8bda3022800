"""The cache: the decoder's frames, the limit, and what may befall the files in it."""

from __future__ import annotations

import errno
import gc
import multiprocessing
import os
import pickle
import resource
import shutil
import signal
import struct
import tempfile
import threading
import time
import warnings
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from tests.support.cache_entries import first_version
from tests.support.videos import remux, write_audio, write_video
from videomae_fast.data import DECODERS, CacheCounts, CachedVideos, DecodeError
from videomae_fast.data.cache import space as space_module
from videomae_fast.data.cache import videos as videos_module
from videomae_fast.data.cache.checksums import frame_checksums
from videomae_fast.data.cache.entry import Origin, entry_bytes
from videomae_fast.data.cache.space import FULL, IN_WORK, Space
from videomae_fast.data.cache.videos import UNDECODABLE
from videomae_fast.data.decoders import Decoder, Frames
from videomae_fast.data.decoders.base import ReaderBase, check_ids

PYAV = DECODERS["pyav"]
GB = 10**9
_CONTEXT = multiprocessing.get_context("forkserver")


class Made(ReaderBase):
    """Frames made from what the file says: ``count height width seed [bad frame] [wait]``."""

    opened = 0

    def __init__(self, path: Path) -> None:
        words = path.read_text().split()
        if len(words) < 4:
            raise DecodeError("not a made video")
        self._path = path
        self.frame_count, *self._size, self._seed = (int(word) for word in words[:4])
        self._bad = int(words[4]) if len(words) > 4 else -1
        self._waits = len(words) > 5
        Made.opened += 1

    def read(self, ids: Sequence[int]) -> Frames:
        numbers = check_ids(ids, self.frame_count)
        if self._bad in numbers:
            raise DecodeError(f"frame {self._bad} of {self.frame_count} can't be decoded")
        if self._waits and len(numbers) == self.frame_count:  # an entry is being filled
            busy = self._path.with_suffix(".busy")
            if not busy.exists():  # the first one hangs
                busy.touch()
                time.sleep(1000)
        return np.stack(
            [
                np.random.default_rng((self._seed, n)).integers(
                    0, 256, (*self._size, 3), dtype=np.uint8
                )
                for n in numbers
            ]
        )


MADE = Decoder("made", Made, lambda: None)


@pytest.fixture(autouse=True)
def _count() -> None:
    Made.opened = 0


def made(folder: Path, seed: int, count: int = 9, height: int = 7, width: int = 5) -> Path:
    path = folder / f"{seed}.made"
    path.write_text(f"{count} {height} {width} {seed}")
    return path


def read(cache: CachedVideos, path: Path, ids: Sequence[int] = (1,), by: Decoder = MADE) -> Frames:
    with cache.open(path, by) as video:
        return video.read(ids)


def truth(path: Path, ids: Sequence[int] = (1,), by: Decoder = MADE) -> Frames:
    with by.open(path) as video:
        return video.read(ids)


def read_right(cache: CachedVideos, paths: Sequence[Path]) -> None:
    for path in paths:
        np.testing.assert_array_equal(read(cache, path), truth(path))


def size_of(path: Path) -> int:
    with MADE.open(path) as video:
        height, width, channels = video.read([0]).shape[1:]
        return entry_bytes(Origin.of(path, "made"), (video.frame_count, height, width, channels))


def entries(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.frames"))


def partials(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.partial"))


def total(folder: Path) -> int:
    return int((folder / "total").read_text())


def taken(folder: Path) -> int:
    """What the files take; 0 for one that has just been renamed or removed."""
    sizes = 0
    for path in [*folder.glob("*.frames"), *folder.glob("*.partial")]:
        try:
            sizes += path.stat().st_size
        except FileNotFoundError:
            continue
    return sizes


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


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "cut off": lambda content: content[:-1],
    "cut off in the header": lambda content: content[:1000],
    "too long": lambda content: content + b"\0",
    "a bit of the header": lambda content: (
        content[:100] + bytes([content[100] ^ 1]) + content[101:]
    ),
    "header length": lambda content: content[:8] + b"\xff\xff\xff\xff" + content[12:],
    "foreign": lambda content: b"RIFF" + content[4:],
    "a bit of the checksums": lambda content: (
        content[:-7] + bytes([content[-7] ^ 4]) + content[-6:]
    ),
    "a bit of their checksum": lambda content: content[:-1] + bytes([content[-1] ^ 1]),
    "empty": lambda content: b"",
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_entry_is_named_and_replaced(tmp_path: Path, damage: str) -> None:
    path, folder = made(tmp_path, 1), tmp_path / "cache"
    read(CachedVideos(folder, GB), path)
    (entry,) = entries(folder)
    good = entry.read_bytes()
    entry.write_bytes(DAMAGES[damage](good))
    with pytest.warns(RuntimeWarning, match=f"{entry.name}.*{path}.* is not served: it"):
        np.testing.assert_array_equal(read(CachedVideos(folder, GB, fill=False), path), truth(path))
    assert entry.read_bytes() != good
    cache = CachedVideos(folder, size_of(path))
    with pytest.warns(RuntimeWarning):
        read(cache, path)
    assert entry.read_bytes() == good
    assert (cache.counts.damaged, cache.counts.filled) == (1, 1)
    assert total(folder) == taken(folder)
    read(cache, path)
    assert cache.counts.hits == 1


FIRST = 4096  # where the frames begin
FRAME = 96 * 80 * 3  # bytes of the frames that are damaged below: 5 blocks and a rest


def _flip(content: bytearray, at: int, bit: int) -> None:
    content[at] ^= 1 << bit


def _exchange(content: bytearray, one: int, other: int, size: int) -> None:
    first, second = content[one : one + size], content[other : other + size]
    content[one : one + size], content[other : other + size] = second, first


FRAME_DAMAGES: dict[str, Callable[[bytearray], None]] = {
    "lowest bit of the first byte": lambda content: _flip(content, FIRST + 4 * FRAME, 0),
    "highest bit of a word": lambda content: _flip(content, FIRST + 4 * FRAME + 8 * 77 + 7, 7),
    "last byte": lambda content: _flip(content, FIRST + 5 * FRAME - 1, 3),
    "a page of zeros": lambda content: content.__setitem__(
        slice(FIRST + 4 * FRAME + 4096, FIRST + 4 * FRAME + 8192), bytes(4096)
    ),
    "pages in the wrong order": lambda content: _exchange(
        content, FIRST + 4 * FRAME, FIRST + 4 * FRAME + 8192, 4096
    ),
    "another frame": lambda content: _exchange(
        content, FIRST + 4 * FRAME, FIRST + 6 * FRAME, FRAME
    ),
}


@pytest.mark.parametrize("damage", FRAME_DAMAGES)
def test_a_damaged_frame_is_not_served_and_its_entry_replaced(tmp_path: Path, damage: str) -> None:
    path, folder = made(tmp_path, 1, 9, 96, 80), tmp_path / "cache"
    read(CachedVideos(folder, GB), path)
    (entry,) = entries(folder)
    good = entry.read_bytes()
    content = bytearray(good)
    FRAME_DAMAGES[damage](content)
    entry.write_bytes(content)
    reading = CachedVideos(folder, GB, fill=False)
    np.testing.assert_array_equal(read(reading, path, [0, 3, 5, 8]), truth(path, [0, 3, 5, 8]))
    assert reading.counts == CacheCounts(hits=1)
    told = f"{entry.name}.*{path}.* is not served: frame 4 is not as it was written; the video is d"
    with pytest.warns(RuntimeWarning, match=told):
        np.testing.assert_array_equal(read(reading, path, [3, 4]), truth(path, [3, 4]))
    assert entry.read_bytes() == content  # it only reads
    cache = CachedVideos(folder, size_of(path))
    with cache.open(path, MADE) as video:
        with pytest.warns(RuntimeWarning, match=told):
            np.testing.assert_array_equal(video.read([0, 4]), truth(path, [0, 4]))
        np.testing.assert_array_equal(video.read([4, 8]), truth(path, [4, 8]))
    assert (cache.counts.damaged, cache.counts.filled) == (1, 1)
    assert entry.read_bytes() == good
    assert total(folder) == taken(folder) == size_of(path)
    np.testing.assert_array_equal(read(cache, path, range(9)), truth(path, range(9)))
    assert (cache.counts.hits, cache.counts.damaged) == (2, 1)


def test_a_damaged_entry_that_another_process_replaced_stays(tmp_path: Path) -> None:
    path, folder = made(tmp_path, 1), tmp_path / "cache"
    cache = CachedVideos(folder, GB)
    read(cache, path)
    (entry,) = entries(folder)
    good = entry.read_bytes()
    damaged = bytearray(good)
    _flip(damaged, FIRST, 0)
    entry.write_bytes(damaged)
    with cache.open(path, MADE) as video:
        entry.unlink()
        entry.write_bytes(good)
        before = entry.stat().st_ino
        with pytest.warns(RuntimeWarning, match="frame 0 is not as"):
            np.testing.assert_array_equal(video.read([0]), truth(path, [0]))
    assert entry.stat().st_ino == before
    assert cache.counts.not_filled == {space_module.CACHED: 1}
    assert total(folder) == taken(folder)


def test_a_damaged_entry_in_a_folder_that_may_only_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, folder = made(tmp_path, 1), tmp_path / "cache"
    read(CachedVideos(folder, GB), path)
    damaged = bytearray(entries(folder)[0].read_bytes())
    _flip(damaged, FIRST, 0)
    entries(folder)[0].write_bytes(damaged)

    def refused(*_: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(space_module.Path, "unlink", refused)
    cache = CachedVideos(folder, GB)
    with (
        pytest.warns(RuntimeWarning, match="is not served: frame 0"),
        pytest.warns(RuntimeWarning, match="can't be changed: Read-only file system: this proc"),
    ):
        np.testing.assert_array_equal(read(cache, path, [0]), truth(path, [0]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # each is told once
        np.testing.assert_array_equal(read(cache, path, [0]), truth(path, [0]))
    assert cache.counts.damaged == 2


def test_entries_of_another_version_are_misses_and_replaced(tmp_path: Path) -> None:
    paths, folder = [made(tmp_path, seed) for seed in range(3)], tmp_path / "cache"
    for path in paths:
        read(CachedVideos(folder, GB), path)
    good = [entry.read_bytes() for entry in entries(folder)]
    for entry in entries(folder)[:2]:
        first_version(entry)
    reading = CachedVideos(folder, GB, fill=False)
    with pytest.warns(RuntimeWarning, match=r"another version.*version 1, this is 3") as told:
        read_right(reading, paths)
    assert len(told) == 1
    assert "replaced" not in str(told[0].message)
    assert reading.counts == CacheCounts(hits=1, misses=2, other_version=2)
    cache = CachedVideos(folder, 3 * size_of(paths[0]))
    with pytest.warns(RuntimeWarning, match="are decoded, and the entries replaced") as told:
        read_right(cache, paths)
    assert len(told) == 1
    assert (cache.counts.filled, cache.counts.other_version, cache.counts.damaged) == (2, 2, 0)
    assert [entry.read_bytes() for entry in entries(folder)] == good
    assert total(folder) == taken(folder) == cache.limit_bytes


@pytest.mark.parametrize("size", [(1, 1), (7, 5), (64, 64), (40, 103), (3, 1366)])
def test_checksums_see_each_byte_and_depend_on_nothing_else(size: tuple[int, int]) -> None:
    generator = np.random.default_rng(0)
    frames = generator.integers(0, 256, (3, *size, 3), dtype=np.uint8)
    expected = frame_checksums(frames)
    assert expected.dtype == np.uint32
    assert len(set(expected.tolist())) == 3
    for number in range(3):
        np.testing.assert_array_equal(frame_checksums(frames[number:][:1]), expected[number:][:1])
    shifted = np.empty(frames.size + 1, np.uint8)  # where no word is aligned
    shifted[1:] = frames.reshape(-1)
    np.testing.assert_array_equal(frame_checksums(shifted[1:].reshape(frames.shape)), expected)
    flat = frames.reshape(3, -1)
    for at in {0, 1, flat.shape[1] // 2, flat.shape[1] - 1}:
        flat[1, at] ^= 1 << (at % 8)
        assert (frame_checksums(frames) != expected).tolist() == [False, True, False]
        flat[1, at] ^= 1 << (at % 8)


def test_checksums_are_what_is_written_down() -> None:
    """In plain Python, as their module describes them: other machines must read our entries."""
    frames = np.random.default_rng(1).integers(0, 256, (2, 60, 50, 3), dtype=np.uint8)
    for frame, found in zip(frames, frame_checksums(frames), strict=True):
        content = frame.tobytes()
        sums = [sum(struct.unpack_from("<512Q", content, at)) % 2**64 for at in (0, 4096)]
        assert found == zlib.crc32(struct.pack("<2Q", *sums) + content[2 * 4096 :])


def test_an_entry_that_is_cut_off_while_it_is_open(tmp_path: Path) -> None:
    path, cache = made(tmp_path, 1), CachedVideos(tmp_path / "cache", GB)
    read(cache, path)
    with cache.open(path, MADE) as video:
        os.truncate(entries(tmp_path / "cache")[0], 4096 + 3 * 7 * 5 * 3)
        np.testing.assert_array_equal(video.read([0, 2]), truth(path, [0, 2]))
        with pytest.warns(RuntimeWarning, match="cut off while it was read"):
            np.testing.assert_array_equal(video.read([1, 8]), truth(path, [1, 8]))
        np.testing.assert_array_equal(video.read([8]), truth(path, [8]))


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


def _fill_and_hang(folder: Path, path: Path) -> None:
    read(CachedVideos(folder, GB), path)


def start_filling(folder: Path, path: Path) -> multiprocessing.process.BaseProcess:
    """A process that is in the middle of filling the entry of ``path``."""
    process = _CONTEXT.Process(target=_fill_and_hang, args=(folder, path), daemon=True)
    process.start()
    for _ in range(1200):
        if path.with_suffix(".busy").exists():
            return process
        time.sleep(0.05)
    raise TimeoutError


def kill(process: multiprocessing.process.BaseProcess) -> None:
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()


def test_what_a_living_process_fills_is_left_alone_and_what_a_killed_one_left_is_not(
    tmp_path: Path,
) -> None:
    hanging, folder = tmp_path / "hanging.made", tmp_path / "cache"
    hanging.write_text("9 7 5 1 -1 wait")
    size, other = size_of(hanging), made(tmp_path, 2)
    process = start_filling(folder, hanging)
    try:
        assert not entries(folder)
        cache = CachedVideos(folder, size + size_of(other) - 1)
        np.testing.assert_array_equal(read(cache, hanging), truth(hanging))
        read(cache, other)  # what is promised to the first is not there for others
        assert cache.counts.not_filled == {IN_WORK: 1, FULL: 1}
        assert total(folder) == taken(folder) == size
        assert len(partials(folder)) == 1
    finally:
        kill(process)
    assert len(partials(folder)) == 1
    assert not entries(folder)
    later = CachedVideos(folder, size_of(other))
    read(later, other)
    assert later.counts.filled == 1
    assert not partials(folder)
    assert total(folder) == taken(folder) == size_of(other)


def test_the_same_video_is_filled_again_after_a_kill(tmp_path: Path) -> None:
    path, folder = tmp_path / "hanging.made", tmp_path / "cache"
    path.write_text("9 7 5 1 -1 wait")
    cache = CachedVideos(folder, size_of(path))
    assert cache._space.room() == cache.limit_bytes  # has looked at the folder before the kill
    kill(start_filling(folder, path))
    assert total(folder) == taken(folder) == cache.limit_bytes
    for _ in range(2):
        np.testing.assert_array_equal(read(cache, path, [0, 8]), truth(path, [0, 8]))
    assert (cache.counts.filled, cache.counts.hits) == (1, 1)
    assert total(folder) == taken(folder) == cache.limit_bytes


def test_changes_wait_for_the_lock(tmp_path: Path) -> None:
    path, folder = made(tmp_path, 1), tmp_path / "cache"
    cache = CachedVideos(folder, GB)
    with Space(folder, GB)._locked():
        thread = threading.Thread(target=read, args=(cache, path), daemon=True)
        thread.start()
        thread.join(0.3)
        assert thread.is_alive()
        assert not partials(folder)
    thread.join(30)
    assert cache.counts.filled == 1


def _read_all(folder: Path, paths: list[Path], limit: int, send: object) -> None:
    cache = CachedVideos(folder, limit)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for path in paths:
            frames = read(cache, path, [0, 3, 8])
            np.testing.assert_array_equal(frames, truth(path, [0, 3, 8]))
    send.send(cache.take_counts())  # type: ignore[attr-defined]


def test_processes_fill_together_within_the_limit(tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    paths = [made(tmp_path, seed, 12 + seed % 3, 40, 31) for seed in range(24)]
    limit = sum(size_of(path) for path in paths[:16])
    readers, processes = [], []
    for shift in range(4):
        ours, theirs = _CONTEXT.Pipe()
        order = paths[shift // 2 * 5 :] + paths[: shift // 2 * 5]  # two each have the same order
        process = _CONTEXT.Process(target=_read_all, args=(folder, 3 * order, limit, theirs))
        process.start()
        theirs.close()
        readers.append(ours)
        processes.append(process)
    while any(process.is_alive() for process in processes):
        with Space(folder, limit)._locked():
            assert taken(folder) <= limit
        time.sleep(0.01)
    counts = sum((reader.recv() for reader in readers), CacheCounts())
    assert [process.exitcode for process in processes] == [0] * 4
    assert counts.hits + counts.misses == 4 * 3 * len(paths)
    assert counts.filled == len(entries(folder)) >= 14
    assert counts.filled_bytes == total(folder) == taken(folder) <= limit
    assert limit - total(folder) < max(map(size_of, paths))
    assert set(counts.not_filled) <= {FULL, IN_WORK, space_module.CACHED}
    assert counts.damaged == 0
    assert not partials(folder)


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
