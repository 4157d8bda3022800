"""The official schedules of learning rate and weight decay, as functions of the step."""

from __future__ import annotations

import math
from dataclasses import dataclass

from videomae_fast.errors import UsageError
from videomae_fast.recipes import schema

REFERENCE_VIDEOS = 256
"""Videos per step that base learning rates are given for."""


@dataclass(frozen=True)
class Schedule:
    """Linear warm-up from 0, then half a cosine.

    peak, final: learning rates; warmup_steps, total_steps: optimizer steps.

    Step 0 trains at exactly 0 and the last warm-up step at the peak, which the first cosine step
    repeats: that is the official schedule (``numpy.linspace`` with both ends). ``final`` would be
    reached at ``total_steps``, one past the last step.

    Raises:
        ValueError: the warm-up is longer than the run.

    Source: cosine_scheduler in utils.py of the official V2 code.
    """

    peak: float
    final: float
    warmup_steps: int
    total_steps: int

    def __post_init__(self) -> None:
        if not 0 <= self.warmup_steps <= self.total_steps:
            raise ValueError(
                f"a warm-up of {self.warmup_steps} steps does not fit a run of {self.total_steps}"
            )

    @staticmethod
    def scaled(
        base_lr: float, min_lr: float, *, videos_per_step: int, warmup_steps: int, total_steps: int
    ) -> Schedule:
        """Both rates scaled by videos per step / 256; samples of the same video do not count.

        The papers state the end of the cosine as 1e-5; the official code scales it as well.

        Source: run_mae_pretraining.py of the official V2 code.
        """
        scale = videos_per_step / REFERENCE_VIDEOS
        return Schedule(base_lr * scale, min_lr * scale, warmup_steps, total_steps)

    def __call__(self, step: int) -> float:
        """The learning rate of a step, counted from 0; from ``total_steps`` on, ``final``."""
        if step < 0:
            raise ValueError(f"step {step} is below 0")
        if step < self.warmup_steps:
            return self.peak * step / max(1, self.warmup_steps - 1)
        if step >= self.total_steps:
            return self.final
        progress = (step - self.warmup_steps) / (self.total_steps - self.warmup_steps)
        return self.final + 0.5 * (self.peak - self.final) * (1 + math.cos(math.pi * progress))


def total_steps(schedule: schema.Schedule, per_epoch: int) -> int:
    """Length of a run in optimizer steps; per_epoch: steps of an epoch."""
    return per_epoch * schedule.epochs if schedule.steps is None else schedule.steps


def learning_rates(schedule: schema.Schedule, optim: schema.Optim, per_epoch: int) -> Schedule:
    """The learning rate of each step of a run; per_epoch: steps of an epoch.

    Raises:
        UsageError: the warm-up is longer than the run.
    """
    warmup, total = per_epoch * schedule.warmup_epochs, total_steps(schedule, per_epoch)
    if warmup > total:
        raise UsageError(
            f"schedule.warmup_epochs ({schedule.warmup_epochs}, of {per_epoch} steps each) is "
            f"longer than the run of {total} steps: lower it or raise schedule.steps"
        )
    return Schedule.scaled(
        optim.base_lr,
        optim.min_lr,
        videos_per_step=optim.videos_per_step,
        warmup_steps=warmup,
        total_steps=total,
    )


def weight_decays(schedule: schema.Schedule, optim: schema.Optim, per_epoch: int) -> Schedule:
    """The weight decay of each step of a run, in groups that decay; per_epoch: steps of an epoch.

    Half a cosine without a warm-up, from ``weight_decay`` to ``weight_decay_end``, which the last
    step falls just short of; the first all along where no end is given.

    Source: wd_schedule_values in run_class_finetuning.py of the official V2 code.
    """
    end = optim.weight_decay if optim.weight_decay_end is None else optim.weight_decay_end
    return Schedule(optim.weight_decay, end, 0, total_steps(schedule, per_epoch))
