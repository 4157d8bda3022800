"""The official learning rate schedule, as a function of the step."""

from __future__ import annotations

import math
from dataclasses import dataclass

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
        base_lr: float,
        min_lr: float,
        *,
        videos_per_step: int,
        warmup_steps: int,
        total_steps: int,
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
