"""Key frames of lists as requests, and how these are read: a clip around each, with its boxes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray

from videomae_fast.data.boxes.detection_views import (
    DetectionViews,
    PlannedView,
    drawn_view,
    viewed_frames,
    whole_view,
)
from videomae_fast.data.boxes.entries import KeyFrameEntry, KeyFrameList
from videomae_fast.data.boxes.geometry import Size
from videomae_fast.data.boxes.kept_open import kept_open
from videomae_fast.data.boxes.key_frames import frame_at, key_frame_ids
from videomae_fast.data.boxes.second_files import SecondFiles
from videomae_fast.data.boxes.video_files import VideoFiles, VideoPart, count_images
from videomae_fast.data.cache import CachedVideos
from videomae_fast.data.decoders import DECODERS, FolderReader, VideoReader, find_decoder
from videomae_fast.data.decoders.content import Content
from videomae_fast.data.decoders.pyav import PyAVReader
from videomae_fast.data.errors import ListError
from videomae_fast.data.keyed_order import draw_order, told_mixing
from videomae_fast.data.order import Draw, item_words
from videomae_fast.data.randomness import Randomness
from videomae_fast.data.reading import ClipRequest, ReadSettings
from videomae_fast.data.views.rule import WORDS_PER_SAMPLE, Plans

FOLDER_FPS = 30.0
"""Of image folders that say none: the frames of AVA."""


@dataclass(frozen=True, slots=True)
class KeyFrameRequest(ClipRequest):
    """A request whose clip lies around a key frame.

    Attributes:
        seconds: of the key frame, from the video's first frame on.
        fps: frames per second; None: what the video says.
        per_second: the video is a folder of a file per second, and `file` the one of the key frame.
    """

    seconds: float
    fps: float | None
    per_second: bool = False


@dataclass(frozen=True)
class KeyFrameReading(ReadSettings):
    """How requests of key frames are read: uint8 clips, of whatever sizes their views have.

    Attributes:
        views: what is drawn of a clip.
        training: draw views; else the whole frame is one.
    """

    views: DetectionViews = field(default_factory=DetectionViews)
    training: bool = False

    def open(self, request: ClipRequest) -> AbstractContextManager[VideoReader]:
        assert isinstance(request, KeyFrameRequest)
        assert isinstance(request.file, Path)  # key frames come from lists of files
        if not request.per_second:
            if request.total < 0 and self.cache is None:
                return kept_open(request.file, DECODERS[self.decoder])
            return super().open(request)

        def open_part(path: Path) -> VideoReader:
            if not path.is_dir():
                return self.open_file(path)
            count = count_images(path, request.name_pattern, request.start)
            return FolderReader(path, request.start, count, request.name_pattern)

        reach = self.frames * request.stride // 2
        return SecondFiles(request.file.parent, request.seconds, reach, open_part)

    def demuxed(self, content: Content) -> AbstractContextManager[PyAVReader]:
        assert isinstance(content, Path)
        # Else all packets of a movie were read for each of its key frames
        kept = kept_open(content, DECODERS["pyav"])
        return cast("AbstractContextManager[PyAVReader]", kept)

    def why_not_encoded(self, request: ClipRequest) -> str | None:
        assert isinstance(request, KeyFrameRequest)
        return "a clip of several files" if request.per_second else None

    def ids(self, video: VideoReader, request: ClipRequest) -> tuple[int, ...]:
        assert isinstance(request, KeyFrameRequest)
        if isinstance(video, SecondFiles):
            key = video.key
        else:
            assert isinstance(request.file, Path)
            key = frame_at(video, request.file, request.seconds, request.fps)
        ids = key_frame_ids(key, self.frames, request.stride, video.frame_count)
        return tuple(ids.tolist())

    def plans(self, frame: Size, duration: int, request: ClipRequest) -> tuple[PlannedView, ...]:
        if not self.training:
            return (PlannedView(frame, whole_view(self.views, frame)),) * self.samples
        draws = [
            Randomness(*request.words[1 + sample * WORDS_PER_SAMPLE :][:2])
            for sample in range(self.samples)
        ]
        return tuple(PlannedView(frame, drawn_view(self.views, frame, draw)) for draw in draws)

    def bytes_of(self, plans: Plans) -> tuple[int, ...]:
        return (len(plans), self.frames, *plans[0].size, 3)

    def fits(self, plan: PlannedView, frame: Size) -> bool:
        """Whether frames are of the size that a plan, and the boxes with it, are for."""
        return plan.frame == frame

    def make(self, frames: NDArray[np.uint8], plans: Plans, out: NDArray[np.uint8]) -> None:
        source = torch.from_numpy(np.ascontiguousarray(frames))
        for clip, plan in zip(out, plans, strict=True):
            clip[:] = viewed_frames(source, plan.view).numpy()


class KeyFrameClips:
    """Key frames of one or more lists; an item is a :class:`Draw`.

    Everything random about an item comes from (seed, epoch, position).

    Args:
        lists: with at least one key frame each.
        reading: how requests are read.
        stride: from one frame of a clip to the next.
        seed: at least 0.
        epoch_size: draws per epoch, None takes the number of key frames of all lists.
        order, block, window: of the draws, see :class:`~videomae_fast.recipes.schema.Reading`.

    Raises:
        ListError: a root that can't be read, or none of a list's videos is there.
        ValueError: some lists have a weight and others none.
    """

    def __init__(
        self,
        lists: Sequence[KeyFrameList],
        reading: KeyFrameReading,
        *,
        stride: int,
        seed: int = 0,
        epoch_size: int | None = None,
        order: str = "computed",
        block: int = 1,
        window: int = 64,
    ) -> None:
        self.lists, self.reading, self.stride, self.seed = list(lists), reading, stride, seed
        self.files = [VideoFiles(one.source) for one in self.lists]
        self.missing = [
            _missing(one, files) for one, files in zip(self.lists, self.files, strict=True)
        ]
        lengths = [len(one.entries) for one in self.lists]
        size = sum(lengths) if epoch_size is None else epoch_size
        self.order = draw_order(
            order, lengths, _shares(self.lists), size, seed, block=block, window=window
        )

    def __len__(self) -> int:
        """Draws per epoch."""
        return self.order.epoch_size

    def describe(self, videos_per_step: int = 1) -> str:
        """A line per list: key frames, boxes, share of the draws, what is missing; and how blocks
        are mixed."""
        weights = _shares(self.lists)
        lines = []
        for one, missing, weight in zip(self.lists, self.missing, weights, strict=True):
            boxes = sum(len(entry.boxes) for entry in one.entries)
            line = f"{one.source.label}: {len(one.entries):,} key frames with {boxes:,} boxes"
            if self.reading.training:
                share = weight / sum(weights)
                line += f", {share:.1%} of {len(self):,} draws per epoch, stride {self.stride}"
            if missing:
                line += f"; {len(missing)} videos are not in its root, as {missing[0]}"
            lines.append(line + (f"; left out: {one.note}" if one.note else ""))
        return "\n".join([*lines, *told_mixing(self.order, videos_per_step)])

    def entry(self, draw: Draw) -> KeyFrameEntry:
        """The key frame that a draw stands for."""
        return self.lists[draw.source].entries[draw.entry]

    def every(self) -> list[Draw]:
        """A draw of each key frame of all lists; its position is its place among them."""
        places = (
            (number, entry)
            for number, one in enumerate(self.lists)
            for entry in range(len(one.entries))
        )
        return [Draw(0, 0, place, *where) for place, where in enumerate(places)]

    def request(self, draw: Draw) -> KeyFrameRequest:
        """A draw with all that is needed to read it."""
        entry, files = self.entry(draw), self.files[draw.source]
        source, video = files.source, entry.key[0]
        part = files.part(video, entry.seconds) or _nowhere(files, entry)
        folder = part.path.is_dir() and not source.per_second
        count = 1 + self.reading.samples * WORDS_PER_SAMPLE
        return KeyFrameRequest(
            draw=draw,
            file=part.path,
            list_path=source.path,
            line=entry.line,
            label=-1,
            start=source.first_frame,
            total=files.images(part.path, video) if folder else -1,
            name_pattern=files.pattern(video),
            stride=self.stride,
            words=tuple(item_words(self.seed, draw.epoch, draw.position, count)),
            seconds=entry.seconds - part.begin,
            fps=source.fps or (FOLDER_FPS if folder else None),
            per_second=source.per_second,
        )


def key_frame_reading(
    *,
    frames: int,
    samples: int = 1,
    decoder: str = "pyav",
    cache: CachedVideos | None = None,
    views: DetectionViews,
    training: bool,
) -> KeyFrameReading:
    """How key frames are read.

    Args:
        frames: of a clip.
        samples: clips of a key frame.
        decoder: of videos.
        cache: a folder of decoded videos, or None.
        views: what is drawn of a clip.
        training: draw views; else the whole frame is one.

    Raises:
        BackendUnavailableError: the decoder is not installed.
    """
    return KeyFrameReading(
        frames,
        (views.crop, views.crop),
        samples,
        find_decoder(decoder).name,
        cache=cache,
        views=views,
        training=training,
    )


def _shares(lists: Sequence[KeyFrameList]) -> list[float]:
    """Weights of the draws: the lists' own, or their key frames."""
    given = [one.source.weight for one in lists if one.source.weight is not None]
    if given and len(given) < len(lists):
        missing = next(one.source.label for one in lists if one.source.weight is None)
        raise ValueError(
            f"{missing} has no weight but other lists have: give a weight to all of them, or to "
            "none (then each is drawn as often as it has key frames)"
        )
    return given or [float(len(one.entries)) for one in lists]


def _missing(one: KeyFrameList, files: VideoFiles) -> list[str]:
    """The videos of a list of which nothing is there."""
    missing, seen = [], set[str]()
    for entry in one.entries:
        video = entry.key[0]
        if video not in seen:
            seen.add(video)
            if files.part(video, entry.seconds) is None:
                missing.append(video)
    if len(missing) == len(seen):
        kind = "VIDEO_BEGIN_END" if one.source.trimmed else "their video"
        kind = "VIDEO/SECOND.mp4" if one.source.per_second else kind
        raise ListError(
            f"{one.source.path}:{one.entries[0].line}: not one of its {len(seen)} videos is in "
            f"{files.root.absolute()}, as {missing[0]}: name the folder of the videos, or of "
            f"folders of images, named as {kind}, with root=FOLDER"
        )
    return missing


def _nowhere(files: VideoFiles, entry: KeyFrameEntry) -> VideoPart:
    """Where a missing video was looked for; reading it says so."""
    path = files.root / entry.key[0]
    if files.source.per_second:
        path /= f"{math.floor(entry.seconds)}.mp4"
    return VideoPart(path, files.source.begin, float("inf"))
