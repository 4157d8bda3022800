"""Batches of clips with boxes: for training, of one size; for tests, each clip as it is."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from videomae_fast.data.boxes.box_plan import BoxDraws, BoxPlan
from videomae_fast.data.boxes.clips import KeyFrameClips, KeyFrameReading
from videomae_fast.data.boxes.detection_views import (
    DetectionView,
    PlannedView,
    viewed_boxes,
    viewed_clips,
    viewed_frames,
)
from videomae_fast.data.boxes.geometry import extended
from videomae_fast.data.dataset import clip_name, failure_of
from videomae_fast.data.device.frames import DeviceFrames, ReadResults, writable
from videomae_fast.data.device.host_memory import HostMemory
from videomae_fast.data.device.stage import CropOn, handed_over, new_stream
from videomae_fast.data.errors import DecodeError
from videomae_fast.data.failures import Failure
from videomae_fast.data.loader.pipeline import TIME_LIMIT, GivenDraws, StepDraws, joined_batches
from videomae_fast.data.loader.stats import PipelineStats
from videomae_fast.data.order import Draw
from videomae_fast.data.randomness import Randomness
from videomae_fast.data.reading import ClipRequest, ReadResult
from videomae_fast.data.views.rule import WORDS_PER_SAMPLE


@dataclass(frozen=True)
class BoxBatch:
    """A micro-batch of B training clips with N boxes.

    Behind a step's last key frame its places are empty: without a name, and no failure.

    frames: uint8 [B, T, side, side, 3]; ok: bool [B], False where the video could not be read and
    its frames are zero; boxes: fp32 [N, 4], x1, y1, x2, y2 in pixels of the clips, on the frames'
    device; clip: int64 [N], the clip of each; labels: bool [N, classes]; seeds: int64 [B], of drop
    path; names: of the videos, with list line and frames; failures: of those that could not be
    read.
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
        """What was copied to the device, or made there."""
        return self.frames, self.boxes


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
    device: torch.device, time_limit: float, stats: PipelineStats, crop_on: CropOn = "worker",
    device_decoder: str | None = None, stopped: Callable[[], bool] = lambda: False,
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
        crop_on, device_decoder: as for :func:`~videomae_fast.data.loader.pipeline.clip_loader`;
            the same frames and boxes wherever they are made, but for what a device decodes.

    Raises:
        BackendUnavailableError: the device can't use the decoder.
    """
    frames = _FramesFrom(clips, device, stats, crop_on, device_decoder)
    joiner = _Training(frames, boxes, classes, draws.videos)
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
    crop_on: CropOn = "worker",
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
        crop_on: who resizes the frames, with the same result: loader processes, or the device.
    """
    frames = _FramesFrom(clips, device, PipelineStats(workers), crop_on, None)
    joiner = _Whole(frames, widened, detected)
    parts = GivenDraws(draws, batch)
    return joined_batches(parts, joiner, workers=workers, time_limit=time_limit)


class _FramesFrom:
    """What both kinds of batches have in common: how key frames are read, and where."""

    def __init__(
        self,
        clips: KeyFrameClips,
        device: torch.device,
        stats: PipelineStats,
        crop_on: CropOn,
        device_decoder: str | None,
    ) -> None:
        self.clips, self.device, self.stats = clips, device, stats
        self.settings, decoder = handed_over(clips.reading, device, crop_on, device_decoder)
        on_gpu = device.type == "cuda"
        self.stream = new_stream(device) if on_gpu else None
        self.memory = HostMemory(pinned=on_gpu)
        self.decoded = DeviceFrames(device, decoder, self.settings.fits, self.memory)


class _Joiner:
    """Draws to requests, and what was read to batches."""

    def __init__(self, frames: _FramesFrom) -> None:
        self._from = frames
        self.settings: KeyFrameReading = frames.settings
        self.stats = frames.stats

    def requests(self, draws: Sequence[Draw]) -> list[ClipRequest]:
        return [self._from.clips.request(draw) for draw in draws]

    def close(self) -> None:
        self._from.decoded.close()

    def _count(self, requests: Sequence[ClipRequest], results: ReadResults) -> None:
        for request, result in zip(requests, results, strict=True):
            if isinstance(result, ReadResult):
                self.stats.numbered(str(request.file), result.numbering)
                self.stats.read(
                    result.decode_seconds, result.crop_seconds, result.waited_seconds,
                    result.kept_back, result.cached, result.queued_seconds, len(result.ids),
                )  # fmt: skip

    def _event(self) -> torch.cuda.Event | None:
        stream = self._from.stream
        return None if stream is None else stream.record_event()


class _Training(_Joiner):
    def __init__(self, frames: _FramesFrom, boxes: BoxDraws, classes: int, places: int) -> None:
        super().__init__(frames)
        self._boxes, self._classes, self._places = boxes, classes, places

    def join(
        self, requests: Sequence[ClipRequest], results: ReadResults
    ) -> tuple[BoxBatch, torch.cuda.Event | None]:
        begin = time.perf_counter()
        samples, empty = self.settings.samples, self._places - len(results)
        self._count(requests, results)
        with torch.cuda.stream(self._from.stream):
            frames, failed = self._frames(results)
            outcomes = [failed.get(number, result) for number, result in enumerate(results)]
            plan = self._plan(requests, outcomes)
            boxes, event = plan.boxes(self._from.device), self._event()
        read = [isinstance(result, ReadResult) for result in outcomes] + [False] * empty
        seeds = [seed for request in requests for seed in request.mask_seeds]
        pairs = list(zip(requests, outcomes, strict=True))
        batch = BoxBatch(
            frames=frames,
            ok=torch.tensor(read).repeat_interleave(samples),
            boxes=boxes,
            clip=torch.tensor(plan.clip, dtype=torch.int64),
            labels=plan.every_label(),
            seeds=torch.tensor(seeds + [0] * (empty * samples)),
            names=[clip_name(q, r) if isinstance(r, ReadResult) else q.name for q, r in pairs],
            failures=[failure_of(q, r) for q, r in pairs if isinstance(r, DecodeError)],
        )
        self.stats.assembled(time.perf_counter() - begin)
        return batch, event

    def _frames(self, results: ReadResults) -> tuple[Tensor, dict[int, DecodeError]]:
        """uint8 [B, T, side, side, 3] on the device, 0 where there are none; what failed there."""
        samples, (side, _) = self.settings.samples, self.settings.size
        shape = (self._places * samples, self.settings.frames, side, side, 3)
        if self.settings.hand_over == "clips":
            host = self._from.memory.take(shape).zero_()
            for i, result in enumerate(results):
                if isinstance(result, ReadResult):
                    host[i * samples : (i + 1) * samples].copy_(
                        torch.from_numpy(writable(result.data))
                    )
            return host.to(self._from.device, non_blocking=True), {}
        decoded, failed = self._from.decoded(results)
        clips = torch.zeros(shape, dtype=torch.uint8, device=self._from.device)
        videos, views, rows = list[Tensor](), list[DetectionView](), list[int]()
        for number, frames in sorted(decoded.items()):
            result = results[number]
            assert isinstance(result, ReadResult)
            for sample, plan in enumerate(result.plans):
                videos.append(frames)
                views.append(plan.view)
                rows.append(number * samples + sample)
        if rows:
            clips[torch.tensor(rows, device=clips.device)] = viewed_clips(videos, views)
        return clips, failed

    def _plan(self, requests: Sequence[ClipRequest], results: ReadResults) -> BoxPlan:
        samples, found = self.settings.samples, BoxPlan(self._boxes, self._classes)
        for i, (request, result) in enumerate(zip(requests, results, strict=True)):
            if isinstance(result, ReadResult):
                entry = self._from.clips.entry(request.draw)
                for sample, plan in enumerate(result.plans):
                    words = request.words[3 + sample * WORDS_PER_SAMPLE :][:2]
                    found.add(i * samples + sample, entry, plan, Randomness(*words))
        return found


class _Whole(_Joiner):
    def __init__(
        self, frames: _FramesFrom, widened: tuple[float, float], detected: Sequence[bool]
    ) -> None:
        super().__init__(frames)
        self._widened, self._detected = widened, detected

    def join(
        self, requests: Sequence[ClipRequest], results: ReadResults
    ) -> tuple[WholeBatch, torch.cuda.Event | None]:
        found: list[WholeClip | Failure] = []
        with torch.cuda.stream(self._from.stream):
            decoded, failed = self._from.decoded(results)
            for number, (request, result) in enumerate(zip(requests, results, strict=True)):
                outcome = failed.get(number, result)
                if isinstance(outcome, ReadResult):
                    frames = self._resized(outcome, decoded.get(number))
                    found.append(self._clip(request.draw, outcome.plans[0], frames))
                else:
                    found.append(failure_of(request, outcome))
            event = self._event()
        self._count(requests, results)
        return WholeBatch([request.draw for request in requests], found), event

    def _resized(self, result: ReadResult, decoded: Tensor | None) -> Tensor:
        """uint8 [T, h, w, 3] on the device."""
        if decoded is not None:
            return viewed_frames(decoded, result.plans[0].view)
        clip = result.data[0]
        host = self._from.memory.take(clip.shape).copy_(torch.from_numpy(writable(clip)))
        return host.to(self._from.device, non_blocking=True)

    def _clip(self, draw: Draw, plan: PlannedView, frames: Tensor) -> WholeClip:
        entry, detected = self._from.clips.entry(draw), self._detected[draw.source]
        rows, there = entry.in_frame(entry.persons if detected else entry.boxes, plan.frame)
        rows, _ = viewed_boxes(rows, plan.frame, plan.view)
        scores, labels = torch.ones(len(rows)), None
        if detected:
            scores = torch.from_numpy(entry.scores)[there].float()
        else:
            labels = torch.from_numpy(entry.labels)[there]
        return WholeClip(
            frames,
            rows,
            extended(rows, plan.size, self._widened),
            scores,
            labels,
            entry.size or plan.frame,
        )
