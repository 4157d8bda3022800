"""What a plan is going to do: clips, steps and rates of each stage, without computing anything."""

from __future__ import annotations

import os
from dataclasses import dataclass

from videomae_fast.data.lists.sources import load_sources
from videomae_fast.errors import UsageError, VideoMAEFastError
from videomae_fast.recipes.classification import FinetuneConfig
from videomae_fast.recipes.multi_view import TestConfig
from videomae_fast.recipes.plan import Plan, Stage
from videomae_fast.recipes.schema import PretrainConfig
from videomae_fast.tasks.classification import check_pairs
from videomae_fast.tasks.labelled import check_labels, classes_of, training_clips, validation_clips
from videomae_fast.tasks.pretraining import dataset_of
from videomae_fast.tasks.progressive.flow import head_of
from videomae_fast.training.parallel.world import videos_per_micro_batch
from videomae_fast.training.schedule import learning_rates, total_steps, weight_decays


@dataclass(frozen=True)
class Outlook:
    """What is known of a stage beforehand.

    Attributes:
        stage: its name.
        lines: what is told, without the stage's name.
        problem: why it could not run as it is, None where nothing is in the way.
    """

    stage: str
    lines: tuple[str, ...]
    problem: str | None = None


def outlooks(plan: Plan) -> list[Outlook]:
    """Every stage's outlook, in order; lists are read, and nothing is written."""
    return [_outlook(plan, stage) for stage in plan.stages]


def _outlook(plan: Plan, stage: Stage) -> Outlook:
    config = stage.config
    lines = [_what(plan, stage)]
    try:
        if head := head_of(plan, stage):
            lines.append(f"head: {head}")
        lines += _tested(config) if isinstance(config, TestConfig) else _trained(config)
    except (VideoMAEFastError, ValueError, OSError) as error:
        return Outlook(stage.name, tuple(lines), str(error))
    return Outlook(stage.name, tuple(lines))


def _what(plan: Plan, stage: Stage) -> str:
    recipe = "" if stage.recipe is None else f" by {stage.recipe}"
    if stage.source is not None:
        begins = f"from the {stage.weights} weights of {stage.source}"
    else:
        init = None if isinstance(stage.config, TestConfig) else stage.config.model.init
        begins = "from new weights" if init is None else f"from {init}"
    return f"{stage.task}{recipe}, {begins}"


def _trained(config: PretrainConfig | FinetuneConfig) -> list[str]:
    optim, schedule = config.optim, config.schedule
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    videos_per_micro_batch(optim.videos_per_step, processes, optim.accumulation)
    lines = []
    if isinstance(config, PretrainConfig):
        dataset = dataset_of(config)
    else:
        check_pairs(config, processes)
        dataset, validation = training_clips(config), validation_clips(config)
        classes = classes_of(config.data.classes, dataset)
        check_labels(dataset.sources, classes)
        validated = "nothing is validated"
        if validation is not None:
            check_labels(validation.sources, classes)
            validated = f"{len(validation):,} videos are validated after each epoch"
        lines.append(f"{classes.count} classes; {validated}")
    per_epoch = dataset.order.steps_per_epoch(optim.videos_per_step)
    total = total_steps(schedule, per_epoch)
    rates = learning_rates(schedule, optim, per_epoch)
    decays = weight_decays(schedule, optim, per_epoch)
    clips = optim.videos_per_step * config.data.samples
    decay = f"{decays.peak:g}"
    if optim.weight_decay_end is not None:
        decay += f" to {decays.final:g}"
    return [
        *lines,
        f"{len(dataset):,} videos x {config.data.samples} clips an epoch; {total:,} steps of "
        f"{optim.videos_per_step} videos ({clips:,} clips), {per_epoch:,} an epoch: "
        f"{total * clips:,} clips in all",
        f"learning rate {rates.peak:.3g} after {rates.warmup_steps:,} steps, falling to "
        f"{rates.final:.3g}; weight decay {decay}",
    ]


def _tested(config: TestConfig) -> list[str]:
    if not config.data.lists:
        raise UsageError("data.lists names no list to test on: give set.data.lists")
    sources = load_sources(config.data.lists)
    videos = sum(len(source) for source in sources)
    views = config.views.segments * config.views.crops
    return [
        f"{videos:,} videos x {config.views.segments} segments x {config.views.crops} crops: "
        f"{videos * views:,} clips"
    ]
