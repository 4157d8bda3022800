"""Fine-tuning: labelled clips to their classes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from videomae_fast.data.loader.pipeline import (
    ClipBatch,
    every_entry,
    steps_per_epoch,
)
from videomae_fast.data.loader.stats import PipelineStats
from videomae_fast.errors import UsageError
from videomae_fast.evaluation.multi_view import score_videos
from videomae_fast.interop import ModelWeights, write_weights
from videomae_fast.interop.weights.model_weights import origin_of
from videomae_fast.models.classifier import VideoClassifier
from videomae_fast.models.config import MAEConfig, mae_config
from videomae_fast.models.transformer import set_recompute
from videomae_fast.recipes.classification import FinetuneConfig
from videomae_fast.recipes.plain import to_plain
from videomae_fast.tasks.classifier_weights import begin_classifier_from
from videomae_fast.tasks.engine import config_of, engine_settings, fingerprint_of, micro_batches
from videomae_fast.tasks.initial import check_same_beginning
from videomae_fast.tasks.labelled import (
    check_labels,
    classes_of,
    training_clips,
    validation_clips,
    videos_of_classes,
    without_videos,
)
from videomae_fast.tasks.moving_average import averaged
from videomae_fast.tasks.recognition import Recognition
from videomae_fast.tasks.validation import (
    BEST,
    Epoch,
    History,
    Numbers,
    Scored,
    at_chance,
    getting_worse,
    training_losses,
    waited,
)
from videomae_fast.training.checkpoint import Log, Saved
from videomae_fast.training.loop import RunResult, run
from videomae_fast.training.parallel.fsdp import gathered, shards, whole_tensors
from videomae_fast.training.parallel.world import World, videos_per_micro_batch
from videomae_fast.training.schedule import learning_rates
from videomae_fast.training.step import uses_bf16
from videomae_fast.training.task import Evaluated, Fingerprint, Settings


def finetune(
    config: FinetuneConfig, *, output: str | Path, resume: str = "auto", log: Log = print
) -> RunResult:
    """Fine-tunes a classifier: the whole run, or what is left of it.

    Args:
        config: what the run is made of.
        output: folder, made where missing; beside what :func:`videomae_fast.training.loop.run`
            says it holds ``validation.jsonl``, a line per epoch, and ``best.safetensors``, the
            weights (or their average) with the best validation.
        resume: "auto", "never", or a checkpoint folder to go on from.
        log: takes progress lines, in the main process only.

    Raises:
        VideoMAEFastError: what stops a run; each kind says what was saved and what to do.
    """
    shape_of(config)  # before any process starts on anything
    settings = engine_settings(config.data, config.optim, config.run)
    return run(
        lambda world: Classification(config, settings, world, Path(output)),
        settings,
        output=output,
        resume=resume,
        log=log,
    )


def shape_of(config: FinetuneConfig) -> MAEConfig:
    """The model's shape, with the clip size and length that its positions are for.

    Raises:
        UsageError: sizes that don't divide.
    """
    model = config.model
    trained: dict[str, Any] = {
        "image_size": model.trained_image_size,
        "frames": model.trained_frames,
    }
    try:
        return replace(mae_config(model), **{k: v for k, v in trained.items() if v is not None})
    except ValueError as error:
        raise UsageError(f"the model can't be: {error}") from None


def build_classifier(config: FinetuneConfig, classes: int) -> VideoClassifier:
    """The model with weights drawn from the seed: the same on every process and device."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.run.seed)
        model = VideoClassifier(
            shape_of(config),
            classes,
            drop_path=config.model.drop_path,
            head_dropout=config.model.head_dropout,
            init_scale=config.model.init_scale,
            activation_checkpointing=config.run.activation_checkpointing,
            other_grids=config.model.other_grids,
        )
    set_recompute(model, config.run.recompute)
    return model


class Classification:
    """A fine-tuning run's data and model.

    Args:
        config: what the run is made of.
        settings: the engine's part of it.
        world: the processes that share the run's clips.
        output: the run's folder.

    Raises:
        UsageError, ListError: the config, or a data list, asks for what can't be.
    """

    name = "finetune"
    activity = "fine-tunes"

    def __init__(
        self, config: FinetuneConfig, settings: Settings, world: World, output: Path
    ) -> None:
        self._config, self.settings, self.world, self.output = config, settings, world, output
        self.feeding = PipelineStats(config.data.workers)
        self.dataset = training_clips(config)
        self.validation = validation_clips(config)
        self.classes = classes_of(config.data.classes, self.dataset)
        check_labels(self.dataset.sources, self.classes)
        if self.validation is not None:
            check_labels(self.validation.sources, self.classes)
        self.counts = videos_of_classes(self.dataset.sources, self.classes)
        self.objective = Recognition(config, self.counts)
        self._check_pairs()
        self.steps_per_epoch = steps_per_epoch(self.dataset, config.optim.videos_per_step)
        self.learning_rate = learning_rates(config.schedule, config.optim, self.steps_per_epoch)
        self.fingerprint = fingerprint_of(config, self.steps_per_epoch)
        self.config = to_plain(config)
        validated = [] if self.validation is None else self.validation.sources
        self.data = {
            "entries": [len(source) for source in self.dataset.sources],
            "validation": [len(source) for source in validated],
            "classes": self.classes.count,
            "steps_per_epoch": self.steps_per_epoch,
        }

    def describe(self) -> str:
        optim, rates = self._config.optim, self.learning_rate
        lines = [
            self.dataset.describe(),
            f"{self.classes.count} classes, {int(self.counts.min())} to {int(self.counts.max())} "
            "training videos of each",
            f"learning rate {rates.peak:.3g} falling to {rates.final:.3g}: base_lr "
            f"{optim.base_lr:g} and min_lr {optim.min_lr:g} times {optim.videos_per_step} videos "
            "per step / 256",
        ]
        if self.validation is None:
            lines.append("no validation list is named: nothing is validated")
        else:
            lines.append(f"validation: {len(self.validation):,} videos after each epoch")
        warning = without_videos(self.counts, self.classes)
        return "\n".join([*lines, warning] if warning else lines)

    def batches(self, start_step: int) -> Iterator[ClipBatch]:
        steps = range(start_step, self.fingerprint.total_steps)
        return micro_batches(self.dataset, self._config, steps, self.world, self.feeding)

    def model(self) -> VideoClassifier:
        return build_classifier(self._config, self.classes.count)

    def shape(self, model: nn.Module) -> dict[str, Any]:
        assert isinstance(model, VideoClassifier)
        said: dict[str, Any] = {
            "kind": "classifier",
            "model": model.config.to_dict(),
            "model_options": {"num_classes": self.classes.count},
        }
        return said if self.classes.names is None else {**said, "labels": list(self.classes.names)}

    def begin(self, model: nn.Module, log: Log, *, digest: bool) -> dict[str, Any] | None:
        assert isinstance(model, VideoClassifier)
        section = self._config.model
        if section.init is None:
            log("no weights to begin from are named (--init): all are drawn from the seed")
            return None
        return begin_classifier_from(
            model,
            section.init,
            self.classes,
            log,
            init_scale=section.init_scale,
            seed=self._config.run.seed,
            digest=digest,
        )

    def began(self, saved: Saved) -> dict[str, Any] | None:
        return check_same_beginning(saved, self._config.model.init)

    def fingerprint_of(self, saved: Saved) -> Fingerprint:
        return fingerprint_of(config_of(FinetuneConfig, saved), self.steps_per_epoch)

    def epoch_done(self, done: int, model: nn.Module, log: Log) -> Evaluated | None:
        """Validates, keeps the best weights, and warns of what looks wrong.

        Nothing is done where this epoch was validated already, by a run that was stopped later.
        """
        if self.validation is None:
            return None
        history = History(self.output)
        known = next((one for one in history.epochs if one.step == done), None)
        if known is not None and known.best and not (self.output / BEST).exists():
            known = None  # stopped before the weights were written
        known = self.world.from_main(known)
        if known is None:
            known = self._validate(done, model, history, log)
        epochs = self.world.from_main([*history.before(done), known])
        patience = self._config.schedule.patience
        stop = patience is not None and waited(epochs) >= patience
        if stop:
            log(f"validation has not become better for {patience} epochs: the run ends here")
        return Evaluated(_told(known), stop=stop)

    def _validate(self, done: int, model: nn.Module, history: History, log: Log) -> Epoch:
        optimizer = self.objective.made
        weights = self._numbers(model, log)
        average = None
        if self._config.optim.ema_decay > 0:
            with averaged(model, optimizer):
                average = self._numbers(model, log)
        log(f"validation after {done} steps: {weights}")
        if average is not None:
            log(f"validation of the weights' average: {average}")
        epoch = history.add(done, weights, average) if self.world.is_main else None
        found: Epoch = self.world.from_main(epoch)
        if found.best == "average":
            with averaged(model, optimizer):
                self._write_best(model)
        elif found.best is not None:
            self._write_best(model)
        if found.best is not None:
            log(f"the best so far: kept in {self.output / BEST}")
        if self.world.is_main:
            self._warn(history.epochs, log)
        return found

    def _numbers(self, model: nn.Module, log: Log) -> Numbers:
        """Of all processes' videos, on every process."""
        assert self.validation is not None
        data, world = self._config.data, self.world
        mine = every_entry(self.validation)[world.rank :: world.size]
        with gathered(model):
            scored = [
                Scored.of(one)
                for one in score_videos(
                    model,
                    self.validation,
                    mine,
                    clips=data.validation_batch,
                    workers=data.workers,
                    device=world.device,
                    bf16=uses_bf16(self.settings, world.device) and not shards(model),
                    time_limit=data.decode_timeout,
                )
            ]
        every = [one for part in world.gather(scored) for one in part]
        for one in sorted(every, key=lambda one: one.place):
            if one.failure is not None:
                log(f"left out of validation: {one.failure}")
        return Numbers.of(every)

    def _write_best(self, model: nn.Module) -> None:
        """The main process writes; all call it."""
        assert isinstance(model, VideoClassifier)
        every = whole_tensors(model.state_dict(), self.world)
        if not self.world.is_main:
            return
        state = {key: value.detach().cpu() for key, value in every.items()}
        path = self.output / BEST
        partial = path.with_name(f"new-{BEST}")
        partial.unlink(missing_ok=True)
        origin = origin_of(str(self.output), "ours", state)
        weights = ModelWeights("classifier", model.config, state, origin, labels=self.classes.names)
        write_weights(weights, partial, "ours")
        os.replace(partial, path)

    def _warn(self, epochs: list[Epoch], log: Log) -> None:
        now = epochs[-1]
        warm = self._config.schedule.warmup_epochs * self.steps_per_epoch
        better = now.average if now.average and now.average.top1 == now.top1 else now.weights
        if now.step > warm and (warning := at_chance(better, self.classes.count)):
            log(warning)
        losses = training_losses(self.output, self.steps_per_epoch)
        if warning := getting_worse(epochs, losses):
            log(warning)

    def _check_pairs(self) -> None:
        """Raises UsageError where clips of a micro-batch can't be mixed in pairs."""
        optim = self._config.optim
        videos = videos_per_micro_batch(optim.videos_per_step, self.world.size, optim.accumulation)
        clips = videos * self._config.data.samples
        if self.objective.mixing.active and clips % 2:
            raise UsageError(
                f"{clips} clips of a micro-batch can't be mixed in pairs: make videos per process "
                "and micro-batch times samples_per_video even, or set mixup and cutmix to 0"
            )


def _told(epoch: Epoch) -> dict[str, float]:
    """Numbers for TensorBoard."""
    found: dict[str, float] = {}
    for prefix, numbers in (("validation", epoch.weights), ("average", epoch.average)):
        if numbers is not None:
            values = {"top1": numbers.top1, "top5": numbers.top5, "loss": numbers.loss}
            found |= {f"{prefix}_{k}": v for k, v in values.items() if v is not None}
    return found
