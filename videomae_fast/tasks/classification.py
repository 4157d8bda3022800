"""Fine-tuning: labelled clips to their classes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from videomae_fast.data.augment.mixing import MixSettings
from videomae_fast.data.dataset import ClipDataset
from videomae_fast.data.loader.pipeline import ClipBatch, every_entry, steps_per_epoch
from videomae_fast.data.loader.stats import PipelineStats
from videomae_fast.errors import UsageError
from videomae_fast.evaluation.multi_view import score_videos
from videomae_fast.interop import ModelWeights
from videomae_fast.interop.weights.model_weights import origin_of
from videomae_fast.models.classifier import VideoClassifier
from videomae_fast.recipes.classification import FinetuneConfig
from videomae_fast.recipes.plain import to_plain
from videomae_fast.tasks.best import BestWeights, saved_steps
from videomae_fast.tasks.classifier_weights import begin_classifier_from
from videomae_fast.tasks.engine import (
    config_of,
    engine_settings,
    fingerprint_of,
    micro_batches,
    set_options,
    shape_of,
)
from videomae_fast.tasks.initial import check_same_beginning
from videomae_fast.tasks.labelled import (
    check_labels,
    classes_of,
    labels_digest,
    strides_without_use,
    training_clips,
    validation_clips,
    videos_of_classes,
    without_videos,
)
from videomae_fast.tasks.listed import lists_digests
from videomae_fast.tasks.moving_average import averaged
from videomae_fast.tasks.pinned import pinned
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
from videomae_fast.training.schedule import learning_rates, weight_decays
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
    check_model(config)  # before any process starts on anything
    settings = engine_settings(config.data, config.optim, config.run)
    return run(
        lambda world: Classification(
            pinned(config, output, resume, world), settings, world, Path(output)
        ),
        settings,
        output=output,
        resume=resume,
        log=log,
    )


def check_model(config: FinetuneConfig) -> None:
    """Raises UsageError for a model that can't be, or rows of the head of no weights."""
    shape_of(config)
    if config.model.head_index is not None and config.model.init is None:
        raise UsageError(
            "model.head_index takes rows of the head of weights to start from, and model.init "
            "names none: give --init, or leave --head-index out"
        )


def build_classifier(config: FinetuneConfig, classes: int) -> VideoClassifier:
    """The model with weights drawn from the seed: the same on every process and device."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.run.seed)
        model = VideoClassifier(shape_of(config), classes, **classifier_options(config))
    set_options(model, config.run)
    return model


def classifier_options(config: FinetuneConfig) -> dict[str, Any]:
    """Arguments of :class:`VideoClassifier` by name, but for its shape and classes."""
    return {
        "drop_path": config.model.drop_path,
        "head_dropout": config.model.head_dropout,
        "init_scale": config.model.init_scale,
        "activation_checkpointing": config.run.activation_checkpointing,
        "other_grids": config.model.other_grids,
    }


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
        self.dataset = self._training_clips()
        self.validation = validation_clips(config)
        self.classes = classes_of(config.data.classes, self.dataset)
        check_labels(self.dataset.sources, self.classes)
        if self.validation is not None:
            check_labels(self.validation.sources, self.classes)
        self.counts = videos_of_classes(self.dataset.sources, self.classes)
        check_pairs(config, world.size)
        self.steps_per_epoch = steps_per_epoch(self.dataset, config.optim.videos_per_step)
        self.learning_rate = learning_rates(config.schedule, config.optim, self.steps_per_epoch)
        self.weight_decay = weight_decays(config.schedule, config.optim, self.steps_per_epoch)
        self.fingerprint = fingerprint_of(config, self.steps_per_epoch)
        self.config = to_plain(config)
        self._told: list[str] = []
        self.objective = self._objective()
        validated = [] if self.validation is None else self.validation.sources
        self.data = {
            "entries": [len(source) for source in self.dataset.sources],
            "validation": [len(source) for source in validated],
            "classes": self.classes.count,
            "labels_sha256": labels_digest([*self.dataset.sources, *validated], self.classes),
            **lists_digests(self.dataset.sources, world),
            **lists_digests(validated, world, "validation_"),
            "steps_per_epoch": self.steps_per_epoch,
        }

    def _training_clips(self) -> ClipDataset:
        return training_clips(self._config)

    def _objective(self) -> Recognition:
        return Recognition(self._config, self.counts)

    def describe(self) -> str:
        optim, rates = self._config.optim, self.learning_rate
        lines = [
            self.dataset.describe(optim.videos_per_step),
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
        found = strides_without_use(self._config.data), without_videos(self.counts, self.classes)
        return "\n".join([*lines, *self._told, *(one for one in found if one is not None)])

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

    def begin(self, model: nn.Module, log: Log) -> dict[str, Any] | None:
        assert isinstance(model, VideoClassifier)
        self._return_to(0)
        section = self._config.model
        if section.init is None:
            log("no weights to begin from are named (--init): all are drawn from the seed")
            return None
        return begin_classifier_from(
            model,
            section.init,
            self.classes,
            log,
            head_index=section.head_index,
            init_scale=section.init_scale,
            seed=self._config.run.seed,
        )

    def began(self, saved: Saved) -> dict[str, Any] | None:
        self._return_to(saved.step)
        return check_same_beginning(saved, self._config.model.init)

    def fingerprint_of(self, saved: Saved) -> Fingerprint:
        return fingerprint_of(config_of(type(self._config), saved), self.steps_per_epoch)

    def epoch_done(self, done: int, model: nn.Module, log: Log) -> Evaluated | None:
        """Validates, keeps the best weights, and warns of what looks wrong.

        Nothing is done where the run goes on from here and was validated here already.
        """
        if self.validation is None:
            return None
        history = History(self.output)
        known = next((one for one in history.epochs if one.step == done), None)
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
        epoch = history.judged(done, weights, average) if self.world.is_main else None
        found: Epoch = self.world.from_main(epoch)
        if found.best is not None:  # before the line that says so
            with averaged(model, optimizer) if found.best == "average" else nullcontext():
                best = self._weights(model)  # of all processes, where they are sharded
            if best is not None:
                BestWeights(self.output).write(done, best)
        if self.world.is_main:
            history.add(found)
            if found.best is not None:
                BestWeights(self.output).follow(history, saved_steps(self.output))
                log(f"the best so far: kept in {self.output / BEST}")
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

    def _weights(self, model: nn.Module) -> ModelWeights | None:
        """Those of a file, for the main process. All call it."""
        assert isinstance(model, VideoClassifier)
        every = whole_tensors(self._classifier(model), self.world)
        if not self.world.is_main:
            return None
        state = {key: value.detach().cpu() for key, value in every.items()}
        origin = origin_of(str(self.output), "ours", state)
        return ModelWeights("classifier", model.config, state, origin, labels=self.classes.names)

    def _return_to(self, step: int) -> None:
        """Validation's history, and the best weights, become those until this step."""
        if self.validation is None or not self.world.is_main:
            return
        validates = step > 0 and (
            step % self.steps_per_epoch == 0 or step == self.fingerprint.total_steps
        )
        history, files = History(self.output), BestWeights(self.output)
        self._told = files.return_to(step, history, validates=validates)
        files.follow(history, saved_steps(self.output, until=step))

    def _classifier(self, model: nn.Module) -> Mapping[str, Tensor]:
        """The model's weights but for those that only training has."""
        return model.state_dict()

    def _warn(self, epochs: list[Epoch], log: Log) -> None:
        now = epochs[-1]
        warm = self._config.schedule.warmup_epochs * self.steps_per_epoch
        better = now.average if now.average and now.average.top1 == now.top1 else now.weights
        warning = at_chance(better.top1, better.videos, self.classes.count)
        if now.step > warm and warning is not None:
            log(warning)
        losses = training_losses(self.output, self.steps_per_epoch)
        if warning := getting_worse(epochs, losses):
            log(warning)


def check_pairs(config: FinetuneConfig, processes: int) -> None:
    """Raises UsageError where clips of a micro-batch can't be shared out, or mixed in pairs."""
    optim = config.optim
    videos = videos_per_micro_batch(optim.videos_per_step, processes, optim.accumulation)
    clips = videos * config.data.samples
    if MixSettings(**asdict(config.mix)).active and clips % 2:
        raise UsageError(
            f"{clips} clips of a micro-batch can't be mixed in pairs: make videos per process and "
            "micro-batch times samples_per_video even, or set mixup and cutmix to 0"
        )


def _told(epoch: Epoch) -> dict[str, float]:
    """Numbers for TensorBoard."""
    found: dict[str, float] = {}
    for prefix, numbers in (("validation", epoch.weights), ("average", epoch.average)):
        if numbers is not None:
            values = {"top1": numbers.top1, "top5": numbers.top5, "loss": numbers.loss}
            found |= {f"{prefix}_{k}": v for k, v in values.items() if v is not None}
    return found
