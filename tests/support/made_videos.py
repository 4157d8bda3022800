"""Videos made from what a file says, read through a cache; and what a cache's folder holds."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from videomae_fast.data import CachedVideos, DecodeError
from videomae_fast.data.cache.entry import Origin, entry_bytes
from videomae_fast.data.decoders import Decoder, Frames
from videomae_fast.data.decoders.base import ReaderBase, check_ids


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
