"""The cache: entries that were damaged, cut off, replaced, or written by another version."""

from __future__ import annotations

import errno
import os
import struct
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.support.cache_entries import first_version
from tests.support.made_videos import (
    MADE,
    entries,
    made,
    read,
    read_right,
    size_of,
    taken,
    total,
    truth,
)
from videomae_fast.data import DECODERS, CacheCounts, CachedVideos
from videomae_fast.data.cache import space as space_module
from videomae_fast.data.cache.checksums import frame_checksums

PYAV = DECODERS["pyav"]
GB = 10**9


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
