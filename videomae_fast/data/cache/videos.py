"""A decoder with a cache before it: the same frames, decoded once."""

from __future__ import annotations

import os
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np

from videomae_fast.data.cache.checksums import Checksums, frame_checksums, pack_table
from videomae_fast.data.cache.entry import (
    DamagedEntryError,
    EntryReader,
    Origin,
    OtherVersionError,
    Shape,
    entry_bytes,
    header,
    open_entry,
)
from videomae_fast.data.cache.space import Space
from videomae_fast.data.decoders import Decoder, Frames, VideoReader
from videomae_fast.data.decoders.base import ReaderBase
from videomae_fast.data.decoders.content import Video
from videomae_fast.data.errors import DecodeError, OutputError, one_file
from videomae_fast.errors import UsageError

CHANGED: Final = "the video was changed meanwhile"
UNDECODABLE: Final = "not all of its frames can be decoded"

# Frames that are decoded at a time while an entry is filled, in bytes: most videos in one go, a
# long or large one without the memory that it takes as a whole.
_CHUNK_BYTES: Final = 1 << 27


@dataclass
class CacheCounts:
    """What became of the videos that were opened.

    Attributes:
        hits: videos that came from the cache.
        misses: videos that came from the decoder.
        filled: entries that were added.
        filled_bytes: of the entries that were added.
        damaged: entries that were not served because they were cut off, corrupt or unreadable.
        not_filled: misses that added no entry, by reason.
        other_version: entries of another version of this library, which are misses.
    """

    hits: int = 0
    misses: int = 0
    filled: int = 0
    filled_bytes: int = 0
    damaged: int = 0
    not_filled: Counter[str] = field(default_factory=Counter)
    other_version: int = 0

    def __add__(self, other: CacheCounts) -> CacheCounts:
        return CacheCounts(
            self.hits + other.hits,
            self.misses + other.misses,
            self.filled + other.filled,
            self.filled_bytes + other.filled_bytes,
            self.damaged + other.damaged,
            self.not_filled + other.not_filled,
            self.other_version + other.other_version,
        )


class CachedVideos:
    """Opens videos through a folder of decoded frames.

    A video that is in the folder is read from there: the very pixels that the decoder gave, which
    a checksum of every frame that is read makes sure of.
    Another one is decoded, and with ``fill`` all its frames are added, once a clip of it was read
    and while there is room. An entry belongs to a path, its size and time of change, and a decoder:
    a file that was changed is decoded again and its entry replaced. Nothing else is ever removed:
    every video comes once per epoch, in an order drawn anew, so no other choice would hit more.

    An object is cheap to make and to send to other processes; ``counts`` are those of one process
    (:meth:`take_counts`). Where the folder can't be written (the disk is full), this process warns
    once, stops filling and goes on reading.

    Args:
        folder: made when it is first filled.
        limit_bytes: for all entries of all processes together.
        fill: whether misses add entries.

    Raises:
        ValueError: a limit below 0.
    """

    def __init__(self, folder: str | Path, limit_bytes: int, *, fill: bool = True) -> None:
        if limit_bytes < 0:
            raise ValueError(f"limit_bytes ({limit_bytes}) must be at least 0")
        self.folder = Path(os.path.abspath(folder))
        self.limit_bytes = limit_bytes
        self.fill = fill
        self.counts = CacheCounts()
        self._space = Space(self.folder, limit_bytes)
        self._stopped: str | None = None
        self._unfit: set[Origin] = set()
        self._told: set[str] = set()

    def __reduce__(self) -> tuple[object, ...]:
        return _restored, (self.folder, self.limit_bytes, self.fill)

    def take_counts(self) -> CacheCounts:
        """The counts since the last call; those of several processes can be added."""
        counts, self.counts = self.counts, CacheCounts()
        return counts

    def open(self, path: str | Video, decoder: Decoder) -> VideoReader:
        """Opens a video, a file or a row of a store, to be used in a ``with`` block.

        Raises :class:`~videomae_fast.data.errors.DecodeError` as ``decoder.open`` does.
        """
        path = Path(path) if isinstance(path, str) else path
        try:
            origin = Origin.of(path, decoder.name)
        except (OSError, DecodeError):
            return decoder.open(path)  # which says what is wrong with it
        try:
            entry = open_entry(self.folder / origin.name, origin)
        except (DamagedEntryError, OSError) as error:
            self._tell_damage(origin, error)
            entry = None
        except OtherVersionError as error:
            self._tell_version(error)
            entry = None
        if entry is not None:
            self.counts.hits += 1
            return _CachedVideo(self, entry, path, decoder, origin)
        video = decoder.open(path)
        self.counts.misses += 1
        return _MissedVideo(self, video, path, decoder, origin) if self.fill else video

    def place(self, video: Video, decoder: Decoder) -> Path:
        """Where the entry of a video lies, if there is one; raises as :meth:`Origin.of` does."""
        return self.folder / Origin.of(video, decoder.name).name

    def _fill(self, path: Video, decoder: Decoder, origin: Origin, shape: Shape) -> None:
        """Adds an entry, or counts why not."""
        reason = self._stopped
        if origin in self._unfit:
            reason = UNDECODABLE
        if reason is None:
            try:
                added = fill(self._space, path, decoder, origin, shape)
            except DecodeError:
                self._unfit.add(origin)
                reason = UNDECODABLE
            except OutputError as error:
                reason = str(error)
                self._stop(reason)
            else:
                if isinstance(added, int):
                    self.counts.filled += 1
                    self.counts.filled_bytes += added
                    return
                reason = added
        self.counts.not_filled[reason] += 1

    def _tell_damage(self, origin: Origin, error: Exception) -> None:
        self.counts.damaged += 1
        # Each damaged file is named, but a disk or folder that can't be read would be at every one.
        once = str(error.errno) if isinstance(error, OSError) else origin.name
        if once not in self._told:
            self._told.add(once)
            warnings.warn(damage(self.folder / origin.name, origin, error), RuntimeWarning, 3)

    def _tell_version(self, error: OtherVersionError) -> None:
        self.counts.other_version += 1
        if "" not in self._told:  # all entries of such a folder are of it
            self._told.add("")
            warnings.warn(
                f"{self.folder}: entries of another version of this library are not served "
                f"({error}); their videos are decoded"
                + (", and the entries replaced" if self.fill else ""),
                RuntimeWarning,
                3,
            )

    def _reopen(
        self, entry: EntryReader, path: Video, decoder: Decoder, origin: Origin
    ) -> VideoReader:
        """The video itself, where its entry turned out to be damaged; with ``fill`` that is gone.

        Raises :class:`~videomae_fast.data.errors.DecodeError` as ``decoder.open`` does.
        """
        if not self.fill:
            return decoder.open(path)
        if self._stopped is None:
            try:
                self._space.discard(origin, entry)
            except OSError as error:
                self._stop(f"{self.folder}: can't be changed: {error.strerror or error}")
        return _MissedVideo(self, decoder.open(path), path, decoder, origin)

    def _stop(self, reason: str) -> None:
        """Adds nothing more, and says so."""
        self._stopped = reason
        warnings.warn(
            f"{reason}: this process adds nothing more to the cache, and goes on reading",
            RuntimeWarning,
            stacklevel=3,
        )


def cache_at(folder: str | None, gigabytes: float) -> CachedVideos | None:
    """The cache that a run is given, or None; what befalls its folder later stops no run.

    Args:
        folder: where it is, or is to be.
        gigabytes: its limit in 10^9 bytes.

    Raises:
        UsageError: a file stands in the place of the folder, or of one above it.
    """
    if folder is None:
        return None
    cache = CachedVideos(folder, round(gigabytes * 1e9))
    there = next(each for each in (cache.folder, *cache.folder.parents) if each.exists())
    if not there.is_dir():
        wrong = "is a file" if there == cache.folder else f"can't be made, as {there} is a file"
        raise UsageError(f"the cache {cache.folder} {wrong}: name a folder")
    return cache


def _restored(folder: Path, limit_bytes: int, fill: bool) -> CachedVideos:
    return CachedVideos(folder, limit_bytes, fill=fill)


def damage(entry: Path, origin: Origin, error: Exception) -> str:
    """Names an entry that is not served."""
    reason = getattr(error, "strerror", None) or str(error)
    return f"{entry} (frames of {origin.path}) is not served: {reason}; the video is decoded"


def fill(space: Space, path: Video, decoder: Decoder, origin: Origin, shape: Shape) -> int | str:
    """Decodes a video, whose frames have this shape, into an entry; its size, or why there is none.

    The video is opened anew, so that the frames don't depend on what was read of it before.

    Raises :class:`~videomae_fast.data.errors.DecodeError` for a frame that can't be decoded, and
    :class:`OutputError` where the folder can't be written.
    """
    size = entry_bytes(origin, shape)
    try:
        place = space.reserve(origin, size)
        if isinstance(place, str):
            return place
        with place, _opened(path, decoder) as video:
            place.write(header(origin, shape))
            checksums: list[Checksums] = []
            step = max(1, _CHUNK_BYTES // (shape[1] * shape[2] * shape[3]))
            for first in range(0, shape[0], step):
                if video.frame_count != shape[0]:
                    return CHANGED
                with one_file():
                    frames = video.read(range(first, min(first + step, shape[0])))
                if frames.shape[1:] != shape[1:]:
                    raise DecodeError("frames of different sizes")
                frames = np.ascontiguousarray(frames)
                place.write(frames.data)
                checksums.append(frame_checksums(frames))
            place.write(pack_table(np.concatenate(checksums)))
            if not _unchanged(path, decoder, origin):
                return CHANGED
            place.publish()
    except OSError as error:
        raise OutputError(f"{space.folder}: can't be filled: {error.strerror or error}") from error
    return size


def _opened(path: Video, decoder: Decoder) -> VideoReader:
    with one_file():
        return decoder.open(path)


def _unchanged(path: Video, decoder: Decoder, origin: Origin) -> bool:
    try:
        return Origin.of(path, decoder.name) == origin
    except OSError:  # it is gone
        return False


class _CachedVideo(ReaderBase):
    """A video from its entry; from the decoder where that turns out to be unreadable."""

    def __init__(
        self, cache: CachedVideos, entry: EntryReader, path: Video, decoder: Decoder, origin: Origin
    ) -> None:
        self._cache, self._entry = cache, entry
        self._path, self._decoder, self._origin = path, decoder, origin
        self._video: VideoReader | None = None

    @property
    def frame_count(self) -> int:
        return self._entry.frame_count

    def read(self, ids: Sequence[int]) -> Frames:
        if self._video is None:
            try:
                return self._entry.read(ids)
            except OSError as error:  # of the disk: the entry may be whole
                self._cache._tell_damage(self._origin, error)
                self._video = self._decoder.open(self._path)
            except DamagedEntryError as error:
                self._cache._tell_damage(self._origin, error)
                self._video = self._cache._reopen(
                    self._entry, self._path, self._decoder, self._origin
                )
        return self._video.read(ids)

    def close(self) -> None:
        self._entry.close()
        if self._video is not None:
            self._video.close()


class _MissedVideo(ReaderBase):
    """A video from the decoder, which is added to the cache after its first clip."""

    def __init__(
        self, cache: CachedVideos, video: VideoReader, path: Video, decoder: Decoder, origin: Origin
    ) -> None:
        self._cache, self._video = cache, video
        self._path, self._decoder, self._origin = path, decoder, origin
        self._tried = False

    @property
    def frame_count(self) -> int:
        return self._video.frame_count

    @property
    def numbered_by_decoding(self) -> str | None:
        return self._video.numbered_by_decoding

    def read(self, ids: Sequence[int]) -> Frames:
        frames = self._video.read(ids)
        if not self._tried:
            self._tried = True
            height, width, channels = frames.shape[1:]
            shape = (self.frame_count, height, width, channels)
            self._cache._fill(self._path, self._decoder, self._origin, shape)
        return frames

    def close(self) -> None:
        self._video.close()
