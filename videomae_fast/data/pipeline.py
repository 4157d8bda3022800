"""From the order of draws to batches: which process reads what, and what the loop receives."""

from __future__ import annotations

import signal
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Sampler

from videomae_fast.data.dataset import ClipDataset, ClipSample
from videomae_fast.data.errors import WorkerDiedError
from videomae_fast.data.failures import Failure
from videomae_fast.data.order import Draw

_NAMED_IN_FLIGHT = 8


@dataclass(frozen=True)
class ClipBatch:
    """One micro-batch of V videos with S samples each; a video's samples are adjacent.

    frames: uint8 [V*S, T, H, W, 3]; mask_seeds: int64 [V*S], for ``Masks.from_seeds``;
    ok: bool [V*S], False where the video could not be read and its frames are zero;
    labels: int64 [V*S], -1 where the list has none; names: of the V videos, with list line and
    frames; failures: of the videos that could not be read.
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

    def pin_memory(self) -> ClipBatch:
        """The batch in page-locked memory, from where a GPU copies without waiting."""
        return replace(
            self,
            frames=self.frames.pin_memory(),
            mask_seeds=self.mask_seeds.pin_memory(),
            ok=self.ok.pin_memory(),
            labels=self.labels.pin_memory(),
        )


def collate(samples: Sequence[ClipSample]) -> ClipBatch:
    """Joins the samples of V videos into a batch."""
    per_video = len(samples[0].mask_seeds)

    def repeated(values: list[int] | list[bool], dtype: torch.dtype) -> Tensor:
        return torch.tensor(values, dtype=dtype).repeat_interleave(per_video)

    return ClipBatch(
        frames=torch.cat([sample.frames for sample in samples]),
        mask_seeds=torch.cat([sample.mask_seeds for sample in samples]),
        ok=repeated([sample.ok for sample in samples], torch.bool),
        labels=repeated([sample.label for sample in samples], torch.int64),
        names=[sample.name for sample in samples],
        failures=[sample.failure for sample in samples if sample.failure is not None],
    )


class StepSampler(Sampler[list[Draw]]):
    """The draws of one rank, one list per micro-batch, from ``start_step`` to ``total_steps``.

    A step's videos are one slice of the epoch's order; a rank takes its contiguous part of it,
    a micro-batch its contiguous part of that. So ranks and micro-batches in turn give the same
    videos in the same order, however many there are.
    """

    def __init__(
        self,
        dataset: ClipDataset,
        videos_per_step: int,
        micro_batches: int,
        steps: range,
        rank: int,
        world: int,
    ) -> None:
        self.order = dataset.order
        self.videos_per_step = videos_per_step
        self.micro_batches = micro_batches
        self.steps = steps
        self.rank = rank
        self.world = world
        self.in_flight: deque[list[Draw]] = deque()

    def __len__(self) -> int:
        return len(self.steps) * self.micro_batches

    def __iter__(self) -> Iterator[list[Draw]]:
        size = self.videos_per_step // (self.world * self.micro_batches)
        for step in self.steps:
            for micro in range(self.micro_batches):
                first = (self.rank * self.micro_batches + micro) * size
                draws = self.order.draws(step, self.videos_per_step, first, first + size)
                self.in_flight.append(draws)
                yield draws


def steps_per_epoch(dataset: ClipDataset, videos_per_step: int) -> int:
    """Optimizer steps per epoch; what is too little for a step at an epoch's end is dropped.

    Raises ``ValueError`` where an epoch has too few draws for one step.
    """
    return dataset.order.steps_per_epoch(videos_per_step)


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
    pin_memory: bool = False,
) -> Iterator[ClipBatch]:
    """Iterates over the batches of steps ``start_step`` ... ``total_steps - 1``, across epochs.

    Gives ``micro_batches`` batches per step, each of ``videos_per_step / (world *
    micro_batches)`` videos; step ``s`` belongs to epoch ``s // steps_per_epoch``. The content of
    a step depends on the data set's seed and the step alone. ``workers`` processes read ahead,
    ``prefetch`` batches each (0 workers: everything happens here, when it is asked for); they
    live as long as the iterator. Nothing is drawn from torch's global random generator.

    Raises ``ValueError`` where the numbers do not divide, and while iterating
    :class:`WorkerDiedError` when a loader process ends.
    """
    if min(videos_per_step, micro_batches, world) < 1 or not 0 <= rank < world:
        raise ValueError(
            f"videos_per_step ({videos_per_step}), micro_batches ({micro_batches}), world "
            f"({world}) must be at least 1 and rank ({rank}) below world"
        )
    if videos_per_step % (world * micro_batches):
        raise ValueError(
            f"videos_per_step ({videos_per_step}) must be a multiple of processes x micro-batches "
            f"({world} x {micro_batches})"
        )
    if workers < 0 or prefetch < 1:
        raise ValueError(
            f"workers ({workers}) must be at least 0, prefetch ({prefetch}) at least 1"
        )
    if start_step < 0:
        raise ValueError(f"start_step ({start_step}) must be at least 0")
    steps_per_epoch(dataset, videos_per_step)
    sampler = StepSampler(
        dataset, videos_per_step, micro_batches, range(start_step, total_steps), rank, world
    )
    loader: DataLoader[ClipSample] = DataLoader(
        dataset,
        batch_sampler=sampler,
        collate_fn=collate,
        num_workers=workers,
        prefetch_factor=prefetch if workers else None,
        pin_memory=pin_memory,
        worker_init_fn=_start_worker,
        # A generator of its own, else the loader takes a number from the global one.
        generator=torch.Generator().manual_seed(0),
    )
    return _batches(loader, sampler, dataset)


def _batches(
    loader: DataLoader[ClipSample], sampler: StepSampler, dataset: ClipDataset
) -> Iterator[ClipBatch]:
    batches: Iterator[Any] = iter(loader)
    while True:
        try:
            batch: ClipBatch = next(batches)
        except StopIteration:
            return
        except RuntimeError as error:
            # Errors raised inside a worker arrive as "Caught ... in DataLoader worker".
            if not str(error).startswith("DataLoader worker (pid"):
                raise
            raise WorkerDiedError(_last_words(str(error), sampler, dataset)) from error
        sampler.in_flight.popleft()
        yield batch


def _last_words(error: str, sampler: StepSampler, dataset: ClipDataset) -> str:
    draws = [draw for batch in sampler.in_flight for draw in batch]
    files = list(dict.fromkeys(str(dataset.file(draw)) for draw in draws))
    shown = ", ".join(files[:_NAMED_IN_FLIGHT])
    if len(files) > _NAMED_IN_FLIGHT:
        shown += f" and {len(files) - _NAMED_IN_FLIGHT} more"
    step = f"step {draws[0].step}" if draws else "the last step"
    return (
        f"a loader process ended while reading ahead from {step} on: {error.strip()} "
        "Usual causes: too little memory, a full /dev/shm (fewer workers or a smaller prefetch), "
        f"or a decoder that crashed on one of the {len(files)} files in flight: {shown}"
    )


def _start_worker(_: int) -> None:
    # Ctrl-C reaches the whole process group: the main process ends its workers in order.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
