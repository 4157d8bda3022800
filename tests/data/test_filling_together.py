"""The cache: processes that fill it at once, wait for each other, hang, or are killed."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
import warnings
from pathlib import Path

import numpy as np

from tests.support.made_videos import entries, made, partials, read, size_of, taken, total, truth
from videomae_fast.data import DECODERS, CacheCounts, CachedVideos
from videomae_fast.data.cache import space as space_module
from videomae_fast.data.cache.space import FULL, IN_WORK, Space

PYAV = DECODERS["pyav"]
GB = 10**9
_CONTEXT = multiprocessing.get_context("forkserver")


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
