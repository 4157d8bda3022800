"""The same compute for every row: multiply-adds of its runs, and the steps that follow of them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from benchmarks.gestures.arms import StudySettings
from benchmarks.study.rows import Row
from videomae_fast.masks.spec import mask_spec
from videomae_fast.models.config import mae_config
from videomae_fast.models.flops import classifier_flops, flops
from videomae_fast.recipes import FinetuneConfig, PretrainConfig, changed

BACKWARD = 2
"""Multiply-adds of a backward pass over those of the forward pass."""

STEPS_PER_EPOCH = 20


@dataclass(frozen=True)
class Budget:
    """What a cell's two runs do.

    Attributes:
        pretraining_steps, finetuning_steps: 0 where there is no such run.
        pretraining, finetuning: multiply-adds, forward and backward; of a probe those of its
            features alone.
    """

    pretraining_steps: int
    finetuning_steps: int
    pretraining: int
    finetuning: int

    def to_dict(self) -> dict[str, int]:
        """As JSON takes it."""
        return dict(vars(self))


def pretraining_config(settings: StudySettings, row: Row) -> PretrainConfig:
    """Of a row's pre-training, without lists and length."""
    return changed(PretrainConfig(), {**settings.model, **settings.pretraining, **row.pretraining})


def budget(settings: StudySettings, row: Row, classes: int) -> Budget:
    """Steps of a row, so that its pre-training costs what that of the settings would.

    Args:
        settings: lengths of the base's runs are `schedule.steps` of both.
        row: one that is long gets the multiply-adds of pre-training for its fine-tuning as well.
        classes: of the set.
    """
    base = changed(PretrainConfig(), {**settings.model, **settings.pretraining})
    tuning = changed(FinetuneConfig(), {**settings.model, **settings.finetuning})
    steps, tuned = base.schedule.steps, tuning.schedule.steps
    if steps is None or tuned is None:
        raise ValueError("a study's settings say schedule.steps of both runs")
    whole = steps * _step(base)
    clips = tuning.optim.videos_per_step * tuning.data.samples
    of_clip = sum(classifier_flops(mae_config(tuning.model), classes).values())
    of_step = (1 + BACKWARD) * clips * of_clip
    tuned += round(whole / of_step) if row.long else 0
    if row.arm == "from scratch":
        return Budget(0, tuned, 0, tuned * of_step)
    cost = _step(pretraining_config(settings, row))
    steps = max(1, round(whole / cost))
    if row.arm == "pre-trained":
        return Budget(steps, tuned, steps * cost, tuned * of_step)
    return Budget(steps, 0, steps * cost, 0)


def _step(config: PretrainConfig) -> int:
    clips = config.optim.videos_per_step * config.data.samples
    one = flops(mae_config(config.model), mask_spec(config.masks), "ours", batch=clips)
    return (1 + BACKWARD) * clips * sum(one.values())


def with_lengths(settings: StudySettings, row: Row, found: Budget) -> StudySettings:
    """The settings of a row's runs: its fields of pre-training, and both lengths.

    An epoch is so many steps whatever the set's size, so that warm-up and schedule are too.
    """

    def run(fields: dict[str, Any], steps: int) -> dict[str, Any]:
        epochs = max(1, steps // STEPS_PER_EPOCH)
        return {
            **fields,
            "data.epoch_size": STEPS_PER_EPOCH * fields["optim.videos_per_step"],
            "schedule.epochs": epochs,
            "schedule.steps": max(1, steps),
            "schedule.warmup_epochs": min(fields["schedule.warmup_epochs"], epochs // 4),
        }

    return replace(
        settings,
        pretraining=run({**settings.pretraining, **row.pretraining}, found.pretraining_steps),
        finetuning=run(settings.finetuning, found.finetuning_steps),
    )
