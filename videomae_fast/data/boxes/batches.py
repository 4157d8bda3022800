"""Batches of clips with boxes: for training, of one size; for tests, each clip as it is."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from videomae_fast.data.boxes.clips import KeyFrameClips, KeyFrameReading, PlannedView
from videomae_fast.data.boxes.detection_views import viewed_boxes
from videomae_fast.data.boxes.entries import KeyFrameEntry
from videomae_fast.data.boxes.geometry import extended, moved
from videomae_fast.data.dataset import clip_name, failure_of
from videomae_fast.data.errors import DecodeError
from videomae_fast.data.failures import Failure
from videomae_fast.data.loader.pipeline import (
    TIME_LIMIT,
    GivenDraws,
    StepDraws,
    joined_batches,
)
from videomae_fast.data.loader.stats import PipelineStats
from videomae_fast.data.order import Draw
from videomae_fast.data.randomness import Randomness
from videomae_fast.data.reading import ClipRequest, ReadResult
from videomae_fast.data.views.rule import WORDS_PER_SAMPLE


@dataclass(frozen=True)
class BoxDraws:
    """How training takes the boxes of a clip.

    Attributes:
        most: of a clip; of more, so many are drawn.
        outwards, inwards: the furthest that an edge moves, see
            :func:`~videomae_fast.data.boxes.geometry.moved`.
    """

    most: int
    outwards: tuple[float, float]
    inwards: tuple[float, float]


@dataclass(frozen=True)
class BoxBatch:
    """A micro-batch of B training clips with N boxes.

    Behind a step's last key frame its places are empty: without a name, and no failure.

    frames: uint8 [B, T, side, side, 3]; ok: bool [B], False where the video could not be read and
    its frames are zero; boxes: fp32 [N, 4], x1, y1, x2, y2 in pixels of the clips; clip: int64 [N],
    the clip of each; labels: bool [N, classes]; seeds: int64 [B], of drop path; names: of the
    videos, with list line and frames; failures: of those that could not be read.
    """

    frames: Tensor
    ok: Tensor
    boxes: Tensor
    clip: Tensor
    labels: Tensor
    seeds: Tensor
    names: list[str]
    failures: list[Failure] = field(default_factory=list)

    def on_device(self) -> tuple[Tensor, ...]:
        """What was copied to the device."""
        return (self.frames,)


@dataclass(frozen=True)
class WholeClip:
    """A key frame as it is tested.

    Attributes:
        frames: uint8 [T, h, w, 3], the whole frames, resized.
        boxes: fp32 [N, 4], where actions are looked for: x1, y1, x2, y2 in pixels of the clip.
        widened: fp32 [N, 4], the same as the model gets them.
        scores: fp32 [N], of these persons.
        labels: bool [N, classes] of annotated boxes; None of detected ones.
        frame: (height, width) that shares of the video belong to.
    """

    frames: Tensor
    boxes: Tensor
    widened: Tensor
    scores: Tensor
    labels: Tensor | None
    frame: tuple[int, int]


@dataclass(frozen=True)
class WholeBatch:
    """Key frames in the order of their draws: each a clip, or why it can't be read."""

    draws: list[Draw]
    clips: list[WholeClip | Failure]

    def on_device(self) -> tuple[Tensor, ...]:
        """What was copied to the device."""
        return tuple(clip.frames for clip in self.clips if isinstance(clip, WholeClip))


def training_batches(
    clips: KeyFrameClips, draws: StepDraws, boxes: BoxDraws, *, classes: int, workers: int,
    device: torch.device, time_limit: float, stats: PipelineStats,
    stopped: Callable[[], bool] = lambda: False,
) -> Iterator[BoxBatch]:  # fmt: skip
    """This process's micro-batches.

    Args:
        clips: to draw from.
        draws: of them, a list for each micro-batch.
        boxes: how the boxes of a clip are taken.
        classes: of the labels.
        workers, time_limit, stopped: as for
            :func:`~videomae_fast.data.loader.pipeline.clip_loader`.
        device: where the clips are to be.
        stats: counts what the stages do.
    """
    joiner = _Training(clips, device, stats, boxes, classes, draws.videos)
    return joined_batches(draws, joiner, workers=workers, time_limit=time_limit, stopped=stopped)


def whole_batches(
    clips: KeyFrameClips,
    draws: Sequence[Draw],
    *,
    batch: int,
    widened: tuple[float, float],
    detected: Sequence[bool],
    workers: int,
    device: torch.device,
    time_limit: float | None = TIME_LIMIT,
) -> Iterator[WholeBatch]:
    """Key frames in the order of their draws, each once.

    Args:
        clips: whole frames.
        draws: of them.
        batch: clips at a time.
        widened: shares of a box's width and height by which the model gets it wider.
        detected: for each list whether actions are looked for in detected persons, else in the
            annotated boxes.
        workers, time_limit: as for :func:`~videomae_fast.data.loader.pipeline.once_loader`.
        device: where the clips are to be.
    """
    joiner = _Whole(clips, device, PipelineStats(workers), widened, detected)
    parts = GivenDraws(draws, batch)
    return joined_batches(parts, joiner, workers=workers, time_limit=time_limit)


class _Reader:
    """What both kinds of batches have in common."""

    def __init__(self, clips: KeyFrameClips, device: torch.device, stats: PipelineStats) -> None:
        self.clips, self.device, self.stats = clips, device, stats
        self.settings: KeyFrameReading = clips.reading
        self._stream = None
        if device.type == "cuda":
            self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def requests(self, draws: Sequence[Draw]) -> list[ClipRequest]:
        return [self.clips.request(draw) for draw in draws]

    def close(self) -> None:
        """Nothing is kept."""

    def _count(self, requests: Sequence[ClipRequest], results: Sequence[object]) -> None:
        for request, result in zip(requests, results, strict=True):
            if isinstance(result, ReadResult):
                self.stats.numbered(str(request.file), result.numbering)
                self.stats.read(
                    result.decode_seconds, result.crop_seconds, result.waited_seconds,
                    result.kept_back, result.cached, result.queued_seconds,
                )  # fmt: skip

    def _moved(self, frames: Tensor) -> Tensor:
        """On the device, on a stream of its own there."""
        if self._stream is None:
            return frames
        with torch.cuda.stream(self._stream):
            return frames.pin_memory().to(self.device, non_blocking=True)

    def _event(self) -> torch.cuda.Event | None:
        return None if self._stream is None else self._stream.record_event()


class _Training(_Reader):
    def __init__(
        self,
        clips: KeyFrameClips,
        device: torch.device,
        stats: PipelineStats,
        boxes: BoxDraws,
        classes: int,
        places: int,
    ) -> None:
        super().__init__(clips, device, stats)
        self._boxes, self._classes, self._places = boxes, classes, places

    def join(
        self, requests: Sequence[ClipRequest], results: Sequence[ReadResult | DecodeError]
    ) -> tuple[BoxBatch, torch.cuda.Event | None]:
        begin = time.perf_counter()
        samples, (side, _) = self.settings.samples, self.settings.size
        frames = torch.zeros(
            (self._places * samples, self.settings.frames, side, side, 3), dtype=torch.uint8
        )
        boxes, labels, clip = [torch.empty(0, 4)], [self._no_labels()], [torch.empty(0).long()]
        for i, (request, result) in enumerate(zip(requests, results, strict=True)):
            if not isinstance(result, ReadResult):
                continue
            frames[i * samples : (i + 1) * samples].copy_(torch.from_numpy(result.data.copy()))
            entry = self.clips.entry(request.draw)
            for sample, plan in enumerate(result.plans):
                words = request.words[3 + sample * WORDS_PER_SAMPLE :][:2]
                mine, own = self._drawn(entry, plan, Randomness(*words))
                boxes.append(mine)
                labels.append(own)
                clip.append(torch.full((len(mine),), i * samples + sample))
        self._count(requests, results)
        empty = self._places - len(results)
        read = [isinstance(result, ReadResult) for result in results] + [False] * empty
        seeds = [seed for request in requests for seed in request.mask_seeds]
        pairs = list(zip(requests, results, strict=True))
        batch = BoxBatch(
            frames=self._moved(frames),
            ok=torch.tensor(read).repeat_interleave(samples),
            boxes=torch.cat(boxes),
            clip=torch.cat(clip),
            labels=torch.cat(labels),
            seeds=torch.tensor(seeds + [0] * (empty * samples)),
            names=[clip_name(q, r) if isinstance(r, ReadResult) else q.name for q, r in pairs],
            failures=[failure_of(q, r) for q, r in pairs if isinstance(r, DecodeError)],
        )
        self.stats.assembled(time.perf_counter() - begin)
        return batch, self._event()

    def _no_labels(self) -> Tensor:
        return torch.empty((0, self._classes), dtype=torch.bool)

    def _drawn(
        self, entry: KeyFrameEntry, plan: PlannedView, draw: Randomness
    ) -> tuple[Tensor, Tensor]:
        """The boxes of a clip, moved, and their labels."""
        rows, there = entry.in_frame(entry.boxes, plan.frame)
        rows, kept = viewed_boxes(rows, plan.frame, plan.view)
        labels = torch.from_numpy(entry.labels)[there][kept]
        if len(rows) > self._boxes.most:
            keys = torch.tensor([draw.uniform() for _ in rows], dtype=torch.float64)
            chosen = keys.argsort()[: self._boxes.most].sort().values
            rows, labels = rows[chosen], labels[chosen]
        uniform = torch.tensor([draw.uniform() for _ in range(4 * len(rows))]).view(-1, 4)
        how = self._boxes
        return moved(rows, uniform, plan.size, how.outwards, how.inwards), labels


class _Whole(_Reader):
    def __init__(
        self,
        clips: KeyFrameClips,
        device: torch.device,
        stats: PipelineStats,
        widened: tuple[float, float],
        detected: Sequence[bool],
    ) -> None:
        super().__init__(clips, device, stats)
        self._widened, self._detected = widened, detected

    def join(
        self, requests: Sequence[ClipRequest], results: Sequence[ReadResult | DecodeError]
    ) -> tuple[WholeBatch, torch.cuda.Event | None]:
        found: list[WholeClip | Failure] = []
        for request, result in zip(requests, results, strict=True):
            if isinstance(result, ReadResult):
                found.append(self._clip(request.draw, result))
            else:
                found.append(failure_of(request, result))
        self._count(requests, results)
        return WholeBatch([request.draw for request in requests], found), self._event()

    def _clip(self, draw: Draw, result: ReadResult) -> WholeClip:
        entry, detected = self.clips.entry(draw), self._detected[draw.source]
        plan: PlannedView = result.plans[0]
        rows, there = entry.in_frame(entry.persons if detected else entry.boxes, plan.frame)
        rows, _ = viewed_boxes(rows, plan.frame, plan.view)
        scores, labels = torch.ones(len(rows)), None
        if detected:
            scores = torch.from_numpy(entry.scores)[there].float()
        else:
            labels = torch.from_numpy(entry.labels)[there]
        return WholeClip(
            self._moved(torch.from_numpy(result.data[0].copy())),
            rows,
            extended(rows, plan.size, self._widened),
            scores,
            labels,
            entry.size or plan.frame,
        )
