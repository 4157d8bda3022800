"""From the order of draws to batches: which process reads what, and what the loop receives.

Loader processes read requests ahead, each a video; a thread of this process joins them to batches,
and where the training device decodes or crops, has it do that; the loop takes finished batches.
"""

from __future__ import annotations

import queue
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace
from typing import Any, Final, Protocol, TypeVar

import torch
from torch import Tensor

from videomae_fast.data.dataset import ClipDataset, clip_name, failure_of
from videomae_fast.data.device.stage import ClipStage, CropOn, handed_over
from videomae_fast.data.errors import DecodeError, StoppedWaitingError
from videomae_fast.data.failures import Failure
from videomae_fast.data.loader.ahead import ReadAhead
from videomae_fast.data.loader.stats import PipelineStats
from videomae_fast.data.loader.turns import ShortTurns
from videomae_fast.data.order import Draw, Order
from videomae_fast.data.reading import ClipRequest, ReadResult, ReadSettings, read
from videomae_fast.data.store.patience import LOOK, patiently

TIME_LIMIT: Final = 120.0
"""Seconds after which a loader process that reads one video counts as hung."""


@dataclass(frozen=True)
class ClipBatch:
    """One micro-batch of V videos with S samples each; a video's samples are adjacent.

    Behind a step's last video its places are empty: as those of a video that could not be read,
    but without a name, and no failure.

    Attributes:
        frames: [V*S, T, H, W, 3], uint8 or, of views that are normalised, fp32.
        mask_seeds: int64 [V*S], for ``Masks.from_seeds``.
        ok: bool [V*S], False where the video could not be read and its frames are zero.
        labels: int64 [V*S], -1 where the list has none.
        names: of the V videos, with list line and frames.
        failures: of the videos that could not be read.
    """

    frames: Tensor
    mask_seeds: Tensor
    ok: Tensor
    labels: Tensor
    names: list[str]
    failures: list[Failure] = field(default_factory=list)

    def __len__(self) -> int:
        """Number of clips, V*S."""
        return len(self.frames)

    def on_device(self) -> tuple[Tensor, ...]:
        """What was copied to the device."""
        return (self.frames,)


def steps_per_epoch(dataset: ClipDataset, videos_per_step: int) -> int:
    """Optimizer steps per epoch; what is too little for a step at an epoch's end is dropped.

    Args:
        dataset: to draw from.
        videos_per_step: of all processes.

    Returns:
        The number, at least 1.

    Raises:
        ValueError: an epoch has too few draws for one step.
    """
    return dataset.order.steps_per_epoch(videos_per_step)


class Ordered(Protocol):
    """What has an order of draws."""

    @property
    def order(self) -> Order: ...


@dataclass(frozen=True)
class StepDraws:
    """The draws of one rank, one list per micro-batch.

    A step's videos are one slice of the epoch's order; a rank takes its contiguous part of it,
    a micro-batch its contiguous part of that. So ranks and micro-batches in turn give the same
    videos in the same order, however many there are.
    """

    dataset: Ordered
    videos_per_step: int
    micro_batches: int
    steps: range
    rank: int
    world: int

    @property
    def videos(self) -> int:
        """Places of a micro-batch; the last ones of a step may stay empty."""
        return -(-self.videos_per_step // (self.world * self.micro_batches))

    def __iter__(self) -> Iterator[list[Draw]]:
        for step in self.steps:
            for micro in range(self.micro_batches):
                yield self.part(step, micro)

    def part(self, step: int, micro: int) -> list[Draw]:
        """The draws of one micro-batch."""
        size, every = self.videos, self.videos_per_step
        first = min((self.rank * self.micro_batches + micro) * size, every)
        return self.dataset.order.draws(step, every, first, min(first + size, every))


def clip_loader(
    dataset: ClipDataset,
    *,
    videos_per_step: int,
    micro_batches: int = 1,
    start_step: int = 0,
    total_steps: int,
    rank: int = 0,
    world: int = 1,
    workers: int = 0,
    prefetch: int = 2,
    device: torch.device | str = "cpu",
    crop_on: CropOn = "worker",
    device_decoder: str | None = None,
    time_limit: float | None = TIME_LIMIT,
    stats: PipelineStats | None = None,
    feeding: PipelineStats | None = None,
    stopped: Callable[[], bool] = lambda: False,
) -> Iterator[ClipBatch]:
    """Iterates over the batches of steps ``start_step`` ... ``total_steps - 1``, across epochs.

    Gives ``micro_batches`` batches per step, each with places for ``videos_per_step / (world *
    micro_batches)`` videos, rounded up; step ``s`` belongs to epoch ``s // steps_per_epoch``. The
    content of a step depends on the data set's seed and the step alone. Nothing is drawn from
    torch's global random generator. Closing the iterator (or its end) ends the processes. While
    they run, Python's threads take shorter turns (:mod:`videomae_fast.data.loader.turns`).

    Args:
        dataset: to draw from.
        videos_per_step: of all processes.
        micro_batches: batches per step and process.
        start_step: the first step.
        total_steps: the step after the last.
        rank: this process's number.
        world: how many processes there are.
        workers: loader processes, a video at a time each. One that crashes, or hangs for longer
            than ``time_limit`` seconds, is replaced, and its video counts as one that can't be
            read. 0: everything happens in this process, when it is asked for.
        prefetch: batches made ready ahead of the one that is asked for.
        device: where the clips are to be.
        crop_on: "worker": loader processes crop; "device": they hand over decoded frames once, and
            all samples of a video are cropped from them on the device.
        device_decoder: "dali" or "torchcodec-cuda": loader processes hand over the file, the device
            decodes it and crops; what it can't decode they decode with the data set's decoder.
        time_limit: seconds that a loader process may take for a video; None: any time.
        stats: counts what the stages do.
        feeding: the former name of `stats`, for one version.
        stopped: whether nobody waits for the next batch any more; asked several times a second.

    Returns:
        Batches, each of a micro-batch's clips on the device.

    Raises:
        ValueError: numbers below their least.
        BackendUnavailableError: the device can't use the decoder.
        WorkerDiedError: while iterating, where loader processes can't be started.
        StoppedWaitingError: while iterating, where nobody waits any more.
    """
    if min(videos_per_step, micro_batches, world) < 1 or not 0 <= rank < world:
        raise ValueError(
            f"videos_per_step ({videos_per_step}), micro_batches ({micro_batches}), world "
            f"({world}) must be at least 1 and rank ({rank}) below world"
        )
    if workers < 0 or prefetch < 1:
        raise ValueError(
            f"workers ({workers}) must be at least 0, prefetch ({prefetch}) at least 1"
        )
    if start_step < 0:
        raise ValueError(f"start_step ({start_step}) must be at least 0")
    if feeding is not None:
        warnings.warn(
            "clip_loader's feeding is now stats; the next version drops the former name",
            DeprecationWarning,
            stacklevel=2,
        )
        stats = feeding if stats is None else stats
    steps_per_epoch(dataset, videos_per_step)
    draws = StepDraws(
        dataset, videos_per_step, micro_batches, range(start_step, total_steps), rank, world
    )
    device = torch.device(device)
    settings, decoder = handed_over(dataset.read_settings, device, crop_on, device_decoder)
    stage = ClipStage(settings.rule, settings.shape, device, decoder)
    joiner = _Joiner(dataset, settings, stage, stats or PipelineStats(workers), draws.videos)
    return joined_batches(
        draws, joiner, workers=workers, prefetch=prefetch, time_limit=time_limit, stopped=stopped
    )


@dataclass(frozen=True)
class GivenDraws:
    """Draws in the order in which they are given, `videos` at a time; the last part may be less."""

    given: Sequence[Draw]
    videos: int

    def __iter__(self) -> Iterator[list[Draw]]:
        for first in range(0, len(self.given), self.videos):
            yield list(self.given[first : first + self.videos])


def once_loader(
    dataset: ClipDataset,
    draws: Sequence[Draw],
    *,
    videos: int,
    workers: int = 0,
    device: torch.device | str = "cpu",
    time_limit: float | None = TIME_LIMIT,
) -> Iterator[ClipBatch]:
    """Iterates over videos in the order of their draws, each once: for what is evaluated.

    Args:
        dataset: that the draws are of.
        draws: see :func:`every_entry`.
        videos: of a batch.
        workers, device, time_limit: as for :func:`clip_loader`.

    Returns:
        Batches of `videos` videos, the last of what is left.

    Raises:
        ValueError: `videos` below 1, or `workers` below 0.
    """
    if videos < 1 or workers < 0:
        raise ValueError(f"videos ({videos}) must be at least 1, workers ({workers}) at least 0")
    device = torch.device(device)
    settings = dataset.read_settings
    if device.type == "cuda":
        settings = replace(settings, hand_over="frames")
    stage = ClipStage(settings.rule, settings.shape, device)
    joiner = _Joiner(dataset, settings, stage, PipelineStats(workers))
    parts = GivenDraws(draws, videos)
    return joined_batches(parts, joiner, workers=workers, time_limit=time_limit)


def every_entry(dataset: ClipDataset) -> list[Draw]:
    """A draw of each entry of all lists, in their order; its position is its place among them."""
    places = (
        (source, entry)
        for source, loaded in enumerate(dataset.sources)
        for entry in range(len(loaded))
    )
    return [Draw(0, 0, place, *where) for place, where in enumerate(places)]


class Joinable(Protocol):
    """A batch of which something was copied to the device."""

    def on_device(self) -> Iterable[Tensor]:
        """It is there when the event that comes with the batch is reached."""
        ...


Joined = TypeVar("Joined", bound=Joinable)
Made = TypeVar("Made", bound=Joinable, covariant=True)


class Joiner(Protocol[Made]):
    """Draws to requests, and what was read to batches."""

    @property
    def settings(self) -> ReadSettings: ...

    @property
    def stats(self) -> PipelineStats: ...

    def requests(self, draws: Sequence[Draw]) -> Sequence[ClipRequest]: ...

    def join(
        self, requests: Sequence[ClipRequest], results: Sequence[ReadResult | DecodeError]
    ) -> tuple[Made, torch.cuda.Event | None]:
        """The batch, and when its clips are on the device."""
        ...

    def close(self) -> None: ...


def joined_batches(
    draws: StepDraws | GivenDraws,
    joiner: Joiner[Joined],
    *,
    workers: int,
    prefetch: int = 2,
    time_limit: float | None = TIME_LIMIT,
    stopped: Callable[[], bool] = lambda: False,
) -> Iterator[Joined]:
    """Iterates over the batches that a joiner makes of draws; as :func:`clip_loader` reads."""
    if workers == 0:
        return _here(draws, joiner, stopped)
    return _ahead(draws, joiner, workers, prefetch, time_limit, stopped)


_EMPTY: Final = DecodeError("no video")
"""In the place of one, behind a step's last."""


class _Joiner:
    """What was read, to batches; of `places` videos each, or of as many as there are."""

    def __init__(
        self,
        dataset: ClipDataset,
        settings: ReadSettings,
        stage: ClipStage,
        stats: PipelineStats,
        places: int = 0,
    ) -> None:
        self.dataset, self.settings, self.stage, self.stats = dataset, settings, stage, stats
        self.places = places

    def close(self) -> None:
        self.stage.close()

    def requests(self, draws: Sequence[Draw]) -> list[ClipRequest]:
        return [self.dataset.request(draw) for draw in draws]

    def join(
        self, requests: Sequence[ClipRequest], results: Sequence[ReadResult | DecodeError]
    ) -> tuple[ClipBatch, torch.cuda.Event | None]:
        """The batch, and when its clips are on the device."""
        begin = time.perf_counter()
        samples = self.settings.samples
        empty = max(0, self.places - len(results))
        clips, failed, event = self.stage([*results, *[_EMPTY] * empty])
        outcomes = [failed.get(number, result) for number, result in enumerate(results)]
        pairs = list(zip(requests, outcomes, strict=True))
        for request, result, outcome in zip(requests, results, outcomes, strict=True):
            if isinstance(result, ReadResult):
                self.stats.numbered(str(request.file), result.numbering)
                self.stats.read(
                    result.decode_seconds,
                    result.crop_seconds,
                    result.waited_seconds,
                    result.kept_back,
                    result.cached,
                    result.queued_seconds,
                    len(result.ids) if isinstance(outcome, ReadResult) else 0,
                    result.kind == "encoded",
                )
        batch = ClipBatch(
            frames=clips,
            mask_seeds=torch.tensor(
                [s for r in requests for s in r.mask_seeds] + [0] * (empty * samples)
            ),
            ok=_repeated(
                [isinstance(r, ReadResult) for r in outcomes] + [False] * empty, samples, torch.bool
            ),
            labels=_repeated([r.label for r in requests] + [-1] * empty, samples, torch.int64),
            names=[clip_name(q, r) if isinstance(r, ReadResult) else q.name for q, r in pairs],
            failures=[failure_of(q, r) for q, r in pairs if isinstance(r, DecodeError)],
        )
        self.stats.assembled(time.perf_counter() - begin)
        return batch, event


def _repeated(values: Sequence[int | bool], times: int, dtype: torch.dtype) -> Tensor:
    return torch.tensor(values, dtype=dtype).repeat_interleave(times)


def _here(
    draws: StepDraws | GivenDraws, joiner: Joiner[Joined], stopped: Callable[[], bool]
) -> Iterator[Joined]:
    """Everything in this process, when it is asked for."""
    with closing(joiner):
        for part in draws:
            requests = joiner.requests(part)
            results = [_read(request, joiner.settings, stopped) for request in requests]
            yield _ready(*joiner.join(requests, results))


def _read(
    request: ClipRequest, settings: ReadSettings, stopped: Callable[[], bool]
) -> ReadResult | DecodeError:
    try:
        return patiently(lambda: read(request, settings), settings.store_timeout, stopped)
    except DecodeError as error:
        return error


def _ahead(
    draws: StepDraws | GivenDraws,
    joiner: Joiner[Joined],
    workers: int,
    prefetch: int,
    time_limit: float | None,
    stopped: Callable[[], bool],
) -> Iterator[Joined]:
    """Processes read, a thread joins, batches wait in a queue."""
    done: queue.Queue[Any] = queue.Queue(maxsize=prefetch)
    stop = threading.Event()
    ahead = ReadAhead(
        (request for part in draws for request in joiner.requests(part)),
        joiner.settings,
        workers=workers,
        held=draws.videos,
        time_limit=time_limit,
        stats=joiner.stats,
    )

    def put(item: Any) -> bool:
        while not stop.is_set():
            try:
                done.put(item, timeout=0.1)
            except queue.Full:
                continue
            return True
        return False

    def joined(part: list[Draw]) -> tuple[Joined, torch.cuda.Event | None]:
        requests = joiner.requests(part)
        taken = [ahead.take() for _ in requests]
        batch = joiner.join(requests, [result for result, _ in taken])
        for _, slot in taken:
            ahead.free(slot)
        return batch

    def assemble() -> None:
        try:
            for part in draws:
                if not put(joined(part)):
                    return
            put(None)
        except BaseException as error:  # raised where the batches are taken
            # What the frames hold is views of the slots, and keeps their memory
            traceback.clear_frames(error.__traceback__)
            put(error)

    thread = threading.Thread(target=assemble, name="clip-joiner", daemon=True)
    with ShortTurns(), ExitStack() as ending:
        ending.callback(joiner.close)
        ending.callback(ahead.close)
        ending.callback(thread.join)
        ending.callback(ahead.stop)
        ending.callback(stop.set)
        thread.start()
        while (item := _waited_for(done, stopped)) is not None:
            if isinstance(item, BaseException):
                try:
                    raise item
                finally:
                    del item  # its traceback holds this frame
            yield _ready(*item)


def _waited_for(done: queue.Queue[Any], stopped: Callable[[], bool]) -> Any:
    while True:
        try:
            return done.get(timeout=LOOK)
        except queue.Empty:
            if stopped():
                raise StoppedWaitingError("the next batch was waited for") from None


def _ready(batch: Joined, event: torch.cuda.Event | None) -> Joined:
    """The batch, for the stream that the caller works on."""
    if event is not None:
        for tensor in batch.on_device():
            stream = torch.cuda.current_stream(tensor.device)
            stream.wait_event(event)
            tensor.record_stream(stream)
    return batch
