"""What the launches of `augmented_views` do, to which view: worked out on the host."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace

import torch
from torch import Tensor

# Kinds of operations, as ops/augment_plan.py numbers them
_COUNTED = (0, 1, 7)
_BLENDED = (6, 9)
_AFFINE = 10


@dataclass
class Job:
    """What is done to one view's frames in one launch: 17 integers, in this order.

    Attributes:
        view: its number.
        through: 1 where levels that are read go through the view's tables.
        source, source_frame, source_row: address of what would be pixel 0 of row 0 of frame 0, and
            bytes from frame to frame and from row to row.
        target, target_frame, target_row: the same of what is written.
        height, width: of the frames, in pixels.
        top, left, rows, columns: of what is made, or of the crop.
        operation: number of the row of numbers.
        flip: of the view.
        seed: of the hole.
    """

    view: int
    through: int = 0
    source: int = 0
    source_frame: int = 0
    source_row: int = 0
    target: int = 0
    target_frame: int = 0
    target_row: int = 0
    height: int = 0
    width: int = 0
    top: int = 0
    left: int = 0
    rows: int = 0
    columns: int = 0
    operation: int = 0
    flip: int = 0
    seed: int = 0

    def numbers(self) -> list[int]:
        """In their order."""
        return [int(getattr(self, each.name)) for each in fields(self)]


@dataclass(frozen=True)
class Part:
    """The jobs of one launch.

    Attributes:
        first, jobs: which of the plan's.
        rows, columns: the most that one of them makes, or of its frames where it makes no pixels.
    """

    first: int = 0
    jobs: int = 0
    rows: int = 0
    columns: int = 0

    def __bool__(self) -> bool:
        return self.jobs > 0


@dataclass(frozen=True)
class Step:
    """The launches that do one operation of each view that has another one."""

    count: Part
    table: Part
    blend: Part
    affine: Part


@dataclass
class _Jobs:
    """Of a step, by launch."""

    count: list[Job] = field(default_factory=list)
    table: list[Job] = field(default_factory=list)
    blend: list[Job] = field(default_factory=list)
    affine: list[Job] = field(default_factory=list)


class Plan:
    """Jobs of every launch, and the memory that they write to.

    Attributes:
        jobs: int64 [J, 17] on the CPU.
        views: number of the first view's job; the others follow, to the end.
        holes: int64 [V, 4] on the CPU: top, left, height and width, 0 where there is none.
        steps: in their order.
        kept: tensors that must stay until all is launched.

    Args:
        clips: uint8 [T, H, W, 3] with the pixels of a row side by side.
        views: int64 [V, 13] on the CPU.
        operations: fp64 [N, 12] on the CPU.
    """

    def __init__(self, clips: Sequence[Tensor], views: Tensor, operations: Tensor) -> None:
        self._frames, self._device = clips[0].shape[0], clips[0].device
        self.kept: list[Tensor] = [*clips]
        rows = operations.tolist()
        steps: list[_Jobs] = []
        last: list[Job] = []
        holes: list[list[int]] = []
        for number, (clip, *numbers) in enumerate(views.tolist()):
            top, left, height, width, flip, *hole, seed, first, count = numbers
            source = clips[clip]
            now = Job(number, 0, source.data_ptr(), source.stride(0), source.stride(1))
            now.height, now.width = source.shape[1:3]
            for step in range(count):
                if step == len(steps):
                    steps.append(_Jobs())
                now = self._after(now, steps[step], first + step, rows[first + step])
            crop = {"top": top, "left": left, "rows": height, "columns": width}
            last.append(replace(now, **crop, flip=flip, seed=seed))
            holes.append(hole)
        everything: list[Job] = []
        self.steps = [
            Step(*[_part(getattr(one, each.name), everything) for each in fields(_Jobs)])
            for one in steps
        ]
        self.views = len(everything)
        everything.extend(last)
        self.jobs = torch.tensor([job.numbers() for job in everything], dtype=torch.int64)
        self.holes = torch.tensor(holes, dtype=torch.int64)

    def _after(self, now: Job, jobs: _Jobs, number: int, row: Sequence[float]) -> Job:
        """Notes an operation on a view whose pixels are where `now` says; where they are then."""
        kind = int(row[0])
        job = replace(now, operation=number)
        if kind != _AFFINE and kind not in _BLENDED:
            if kind in _COUNTED:
                jobs.count.append(job)
            jobs.table.append(job)
            return replace(now, through=1)
        top, bottom, left, right = map(int, row[8:12])
        job.top, job.left, job.rows, job.columns = top, left, bottom - top, right - left
        shape = (self._frames, job.rows, job.columns, 3)
        target = torch.empty(shape, dtype=torch.uint8, device=self._device)
        self.kept.append(target)
        job.target_frame, job.target_row = target.stride(0), target.stride(1)
        job.target = target.data_ptr() - top * job.target_row - left * 3
        (jobs.affine if kind == _AFFINE else jobs.blend).append(job)
        return replace(
            now,
            through=0,
            source=job.target,
            source_frame=job.target_frame,
            source_row=job.target_row,
        )


def _part(jobs: Sequence[Job], everything: list[Job]) -> Part:
    """The launch of these jobs, which are put behind all others."""
    if not jobs:
        return Part()
    first = len(everything)
    everything.extend(jobs)
    rows, columns = (
        max(job.rows or job.height for job in jobs),
        max(job.columns or job.width for job in jobs),
    )
    return Part(first, len(jobs), rows, columns)
