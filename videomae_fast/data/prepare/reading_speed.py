"""How fast training's decoder reads clips of the sources and of the new files."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from videomae_fast.data.decoders import open_video
from videomae_fast.data.loader.workers import WorkerPool
from videomae_fast.data.order import below, item_words
from videomae_fast.data.views.sampling import frame_ids, possible_starts

FRAMES, STRIDE = 16, 4
_CLIPS_PER_FILE = 4


@dataclass(frozen=True)
class ReadingSpeed:
    """Frames per second that one process is given, opening the files included.

    before, after: of the sources and of the new files; files: how many were read; clips: how many
    in each of both.
    """

    before: float
    after: float
    files: int
    clips: int

    @property
    def ratio(self) -> float:
        return self.after / self.before


def reading_speed(pairs: Sequence[tuple[Path, Path]], time_limit: float) -> ReadingSpeed | None:
    """Reads random clips of 16 frames at stride 4 of (source, new file) pairs, in turn.

    Each file is read once beforehand, so that the decoding is timed and not the disk. Files that
    can't be read or take longer than ``time_limit`` seconds are left out; None where all are.
    """
    with WorkerPool(_time, workers=1, time_limit=time_limit) as pool:
        timed = [done.result for done in pool.run(pairs) if done.result is not None]
    if not timed:
        return None
    clips = len(timed) * _CLIPS_PER_FILE
    before, after = (sum(times) for times in zip(*timed, strict=True))
    return ReadingSpeed(clips * FRAMES / before, clips * FRAMES / after, len(timed), clips)


def _time(pair: tuple[Path, Path]) -> tuple[float, float]:
    """Seconds for the clips of a source and of its new file."""
    for path in pair:
        _read(path, 0)
    seconds = [0.0, 0.0]
    for clip in range(_CLIPS_PER_FILE):
        for side, path in enumerate(pair):
            start = time.perf_counter()
            _read(path, clip)
            seconds[side] += time.perf_counter() - start
    return seconds[0], seconds[1]


def _read(path: Path, clip: int) -> None:
    with open_video(path) as video:
        duration = video.frame_count
        (word,) = item_words(0, 0, clip, 1)  # the same start in both files
        first = below(word, possible_starts(duration, FRAMES, STRIDE))
        video.read(frame_ids(duration, first, FRAMES, STRIDE).tolist())
