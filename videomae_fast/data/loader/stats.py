"""How well the training device is fed, and which stage holds it up."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

from videomae_fast.data.cache import CacheCounts
from videomae_fast.data.loader.numbered import NumberedFiles

BUSY = 0.85
"""Share of the time from which on a stage counts as the one that holds the others up."""


class Bottleneck(NamedTuple):
    """The stage that holds the others up, and a sentence on what to do."""

    stage: str
    advice: str


class PipelineStats:
    """Counts what the stages of the data pipeline do; any thread may add.

    Args:
        workers: loader processes (0: the main process reads by itself).
        clock: seconds since any time.
    """

    def __init__(self, workers: int, clock: Callable[[], float] = time.perf_counter) -> None:
        self.workers = workers
        self._clock = clock
        self._lock = threading.Lock()
        self.kept_back: Counter[str] = Counter()
        """Videos that a loader process decoded although the device was to, by reason."""
        self.cached = CacheCounts()
        self._ways: set[object] = set()
        self._begun = False
        self._since: float
        self._work: float
        self._numbered, self._news = NumberedFiles(), list[str]()
        self._reset()

    def worked(self, seconds: float) -> None:
        """A loader process was busy with a video."""
        with self._lock:
            if not self._begun:  # until now they only started
                self._begun = True
                self._since = max(self._since, self._clock() - seconds)
            self._work += seconds

    def read(
        self,
        decode_seconds: float,
        crop_seconds: float,
        waited_seconds: float = 0.0,
        kept_back: str | None = None,
        cached: CacheCounts | None = None,
        queued_seconds: float = 0.0,
        frames: int = 0,
        on_device: bool = False,
    ) -> None:
        """What a video took of a loader process, and how it was read.

        waited_seconds, queued_seconds: of decode_seconds, waiting for the file and for a free core;
        frames: of its clips; on_device: they are decoded there.
        """
        with self._lock:
            self._decode += decode_seconds
            self._crop += crop_seconds
            self._waited += waited_seconds
            self._queued += queued_seconds
            if kept_back is not None:
                self.kept_back[kept_back] += 1
            if cached is not None:
                self.cached += cached
            where = "cached" if cached is not None and cached.hits else "cpu"
            self._frames["device" if on_device else where] += frames

    def numbered(self, path: str, why: str | None) -> None:
        """A file was read that had to be decoded to number its frames, unless ``why`` is None."""
        with self._lock:
            if (line := self._numbered.tell(path, why)) is not None:
                self._news.append(line)

    def news(self) -> list[str]:
        """Lines for the log that were not told yet."""
        with self._lock:
            told, self._news = self._news, []
        return told

    def how_read(self, *, again: bool = False) -> str | None:
        """How videos were read so far, where that is not the plain way; in a sentence.

        None, unless ``again``, where only the counts have changed since it was told.
        """
        told = []
        cached = self.cached
        opened = cached.hits + cached.misses
        # Each damaged entry is news
        ways: set[object] = {*cached.not_filled, *self.kept_back, ("damaged", cached.damaged)}
        ways |= {("cache", opened > 0), ("other version", cached.other_version)}
        if not again and ways <= self._ways:
            return None
        self._ways |= ways
        if opened:
            told.append(f"{cached.hits:,} of {opened:,} videos came from the cache")
            told += [
                f"{count:,} not added to it: {why}" for why, count in cached.not_filled.items()
            ]
            if cached.damaged:
                told.append(f"{cached.damaged:,} times an entry was damaged and not served")
            if cached.other_version:
                told.append(f"{cached.other_version:,} entries were of another version")
        if again and (numbered := self._numbered.summary()) is not None:
            told.append(numbered)
        if self.kept_back:
            reasons = ", ".join(f"{count:,} for {why}" for why, count in self.kept_back.items())
            told.append(f"decoded by loader processes instead of the device: {reasons}")
        return "; ".join(told) or None

    def assembled(self, seconds: float) -> None:
        """A batch was joined, and on a device decoded and cropped, in this process."""
        with self._lock:
            self._assemble += seconds

    def seconds(self) -> dict[str, float]:
        """Of the videos since the last :meth:`bottleneck`: ``decode`` and ``crop``, added up over
        loader processes, and ``assemble``."""
        with self._lock:
            return {"decode": self._decode, "crop": self._crop, "assemble": self._assemble}

    def frames(self) -> dict[str, int]:
        """Of the videos since the last :meth:`bottleneck`: frames of their clips that were decoded
        on the CPU and on the device, and that came from the cache."""
        with self._lock:
            return {f"frames_{place}": count for place, count in self._frames.items()}

    def bottleneck(self) -> Bottleneck:
        """Which stage was busiest since the last call, and what to do."""
        with self._lock:
            seconds = max(self._clock() - self._since, 1e-9)
            work, decode, crop = self._work, self._decode, self._crop
            waited, queued, assemble = self._waited, self._queued, self._assemble
            self._reset()
        if self.workers == 0:
            return Bottleneck(
                "main process",
                "the main process reads the clips itself: give it loader processes (--workers)",
            )
        busy = work / (seconds * self.workers)
        if busy >= BUSY:
            if waited > 0.5 * (decode + crop):
                return Bottleneck(
                    "files",
                    f"the loader processes are busy {busy:.0%} of the time, but mostly wait: for "
                    "the disk or network (put the files on a faster disk, or make them smaller "
                    "with videomae-fast prepare), or for a free core (take fewer --workers)",
                )
            if queued > 0.5 * (decode + crop):
                return Bottleneck(
                    "cores",
                    f"the loader processes are busy {busy:.0%} of the time, but mostly wait for a "
                    "free core: take fewer --workers, or give the run more cores",
                )
            share = crop / (decode + crop) if decode + crop else 0.0
            if share > 0.5:
                return Bottleneck(
                    "cropping",
                    f"the loader processes are busy {busy:.0%} of the time, mostly cropping: crop "
                    "on the device (--crop-on device), or take more --workers",
                )
            return Bottleneck(
                "decoding",
                f"the loader processes are busy {busy:.0%} of the time, mostly decoding: take more "
                "--workers, transcode the videos once (videomae-fast prepare), or decode on the "
                "GPU (--device-decoder dali)",
            )
        joined = assemble / seconds
        if joined >= BUSY:
            return Bottleneck(
                "joining",
                f"joining batches in the main process is busy {joined:.0%} of the time: decoding "
                "or cropping on the device, or copying, holds the loader processes up",
            )
        # Who waits for a file is busy: this is neither the disk nor the network
        return Bottleneck(
            "waiting",
            f"neither the loader processes (busy {busy:.0%} of the time) nor joining batches "
            f"({joined:.0%}) is at its limit: steps of few videos wait for the slowest of them, "
            "and loader processes take a while to start; more --workers may help",
        )

    def _reset(self) -> None:
        self._since = self._clock()
        self._work = self._decode = self._crop = self._waited = self._queued = 0.0
        self._assemble = 0.0
        self._frames = {"cpu": 0, "device": 0, "cached": 0}
