"""Detection: key frames with boxes to what each person does."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from videomae_fast.data.boxes.batches import BoxBatch, training_batches
from videomae_fast.data.boxes.box_plan import BoxDraws
from videomae_fast.data.loader.pipeline import StepDraws
from videomae_fast.data.loader.stats import PipelineStats
from videomae_fast.errors import UsageError
from videomae_fast.evaluation.detection import (
    KeyFrameScores,
    ScoreSettings,
    looked_at,
    precision_of,
    score_key_frames,
)
from videomae_fast.interop import ModelWeights
from videomae_fast.interop.weights.model_weights import detector_options, origin_of
from videomae_fast.models.detector import ActionDetector
from videomae_fast.models.pixels import IMAGENET, SLOWFAST
from videomae_fast.recipes.detection import DetectConfig
from videomae_fast.recipes.plain import to_plain
from videomae_fast.tasks.best import BestWeights, saved_steps
from videomae_fast.tasks.detection.acting import Acting
from videomae_fast.tasks.detection.history import DetectionHistory, Validated, validated, waited
from videomae_fast.tasks.detection.key_frames import (
    digests_of,
    read_lists,
    training_clips,
    validation_clips,
)
from videomae_fast.tasks.detection.weights import begin_detector_from
from videomae_fast.tasks.engine import (
    config_of,
    crop_on,
    device_decoder,
    engine_settings,
    fingerprint_of,
    set_options,
    shape_of,
)
from videomae_fast.tasks.initial import check_same_beginning
from videomae_fast.tasks.validation import BEST
from videomae_fast.training.checkpoint import Log, Saved
from videomae_fast.training.loop import RunResult, run
from videomae_fast.training.parallel.fsdp import gathered, shards, whole_tensors
from videomae_fast.training.parallel.world import World
from videomae_fast.training.schedule import learning_rates, weight_decays
from videomae_fast.training.step import uses_bf16
from videomae_fast.training.task import Evaluated, Fingerprint, Settings


def train_detector(
    config: DetectConfig, *, output: str | Path, resume: str = "auto", log: Log = print
) -> RunResult:
    """Trains an action detector: the whole run, or what is left of it.

    Args:
        config: what the run is made of.
        output: folder, made where missing; beside what :func:`videomae_fast.training.loop.run`
            says it holds ``validation.jsonl``, a line per validation, and ``best.safetensors``, the
            weights with the best mAP.
        resume: "auto", "never", or a checkpoint folder to go on from.
        log: takes progress lines, in the main process only.

    Raises:
        VideoMAEFastError: what stops a run; each kind says what was saved and what to do.
    """
    shape_of(config)  # before any process starts on anything
    settings = engine_settings(config.data, config.optim, config.run)
    return run(
        lambda world: Detection(config, settings, world, Path(output)),
        settings,
        output=output,
        resume=resume,
        log=log,
    )


def build_detector(config: DetectConfig, classes: int) -> ActionDetector:
    """The model with weights drawn from the seed: the same on every process and device."""
    model = config.model
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.run.seed)
        detector = ActionDetector(
            shape_of(config),
            classes,
            drop_path=model.drop_path,
            head_dropout=model.head_dropout,
            init_scale=model.init_scale,
            activation_checkpointing=config.run.activation_checkpointing,
            pixels=SLOWFAST if model.pixels == "slowfast" else IMAGENET,
            bins=model.bins,
            sampling_ratio=model.sampling_ratio,
            aligned=model.aligned,
        )
    set_options(detector, config.run)
    return detector


class Detection:
    """A detection run's data and model.

    Args:
        config: what the run is made of.
        settings: the engine's part of it.
        world: the processes that share the run's clips.
        output: the run's folder.

    Raises:
        UsageError, ListError: the config, or a data list, asks for what can't be.
    """

    name = "detect"
    activity = "trains a detector"

    def __init__(
        self, config: DetectConfig, settings: Settings, world: World, output: Path
    ) -> None:
        self._config, self.settings, self.world, self.output = config, settings, world, output
        data, augment = config.data, config.augment
        if not data.lists:
            raise UsageError("data.lists names no list: give at least one with --data LIST")
        self.feeding = PipelineStats(data.workers)
        lists, self.actions = read_lists(
            data.lists,
            classes=data.classes,
            label_map=data.label_map,
            person_score=data.person_score,
        )
        validated_lists, _ = read_lists(
            data.validation,
            classes=self.actions.count,
            label_map=data.label_map,
            person_score=data.person_score,
        )
        self.clips = training_clips(config, lists)
        self.validation = validation_clips(config, validated_lists, self.actions)
        self._boxes = BoxDraws(data.max_boxes, augment.outwards, augment.inwards)
        entries = [entry for one in self.clips.lists for entry in one.entries]
        boxes = sum(min(len(entry.boxes), data.max_boxes) for entry in entries)
        self.objective = Acting(config, boxes / len(entries))
        videos = config.optim.videos_per_step
        self.steps_per_epoch = self.clips.order.steps_per_epoch(videos)
        self.learning_rate = learning_rates(config.schedule, config.optim, self.steps_per_epoch)
        self.weight_decay = weight_decays(config.schedule, config.optim, self.steps_per_epoch)
        self.fingerprint = fingerprint_of(config, self.steps_per_epoch)
        self.config = to_plain(config)
        self._told: list[str] = []
        self.data = {
            "key_frames": [len(one.entries) for one in self.clips.lists],
            "boxes": sum(len(entry.boxes) for entry in entries),
            "validation": [len(one.entries) for one in validated_lists],
            **digests_of(self.clips.lists),
            **digests_of(validated_lists, "validation_"),
            "classes": self.actions.count,
            "steps_per_epoch": self.steps_per_epoch,
        }

    def describe(self) -> str:
        optim, rates, actions = self._config.optim, self.learning_rate, self.actions
        lines = [
            self.clips.describe(optim.videos_per_step),
            *self._told,
            f"{actions.count} actions, of which {len(actions.counted)} count in the score",
            f"learning rate {rates.peak:.3g} falling to {rates.final:.3g}: base_lr "
            f"{optim.base_lr:g} and min_lr {optim.min_lr:g} times {optim.videos_per_step} clips "
            "per step / 256",
        ]
        if self.validation is None:
            return "\n".join([*lines, "no validation list is named: nothing is validated"])
        lines.append(f"validation: {self.validation.describe()}")
        known = [one.source.label for one in self.validation.lists if one.source.proposals is None]
        if known:
            lines.append(
                f"{', '.join(known)}: no proposals, so actions are looked for in the annotated "
                "boxes, which scores higher than detected ones would"
            )
        return "\n".join(lines)

    def batches(self, start_step: int) -> Iterator[BoxBatch]:
        data, optim, world = self._config.data, self._config.optim, self.world
        draws = StepDraws(
            self.clips,
            optim.videos_per_step,
            optim.accumulation,
            range(start_step, self.fingerprint.total_steps),
            world.rank,
            world.size,
        )
        return training_batches(
            self.clips,
            draws,
            self._boxes,
            classes=self.actions.count,
            workers=data.workers,
            device=world.device,
            time_limit=data.decode_timeout,
            stats=self.feeding,
            crop_on=crop_on(data, world.device),
            device_decoder=device_decoder(data),
            stopped=world.gives_up,
        )

    def model(self) -> ActionDetector:
        return build_detector(self._config, self.actions.count)

    def shape(self, model: nn.Module) -> dict[str, Any]:
        assert isinstance(model, ActionDetector)
        return {
            "kind": "detector",
            "model": model.config.to_dict(),
            "model_options": {"num_classes": self.actions.count, **detector_options(model)},
            "labels": list(self.actions.labels),
        }

    def begin(self, model: nn.Module, log: Log) -> dict[str, Any] | None:
        assert isinstance(model, ActionDetector)
        self._return_to(0)
        section = self._config.model
        if section.init is None:
            log("no weights to begin from are named (--init): all are drawn from the seed")
            return None
        return begin_detector_from(model, section.init, log, init_norm=section.init_norm)

    def began(self, saved: Saved) -> dict[str, Any] | None:
        self._return_to(saved.step)
        return check_same_beginning(saved, self._config.model.init)

    def fingerprint_of(self, saved: Saved) -> Fingerprint:
        return fingerprint_of(config_of(DetectConfig, saved), self.steps_per_epoch)

    def epoch_done(self, done: int, model: nn.Module, log: Log) -> Evaluated | None:
        """Validates, and keeps the best weights.

        Nothing is done where the run goes on from here and was validated here already.
        """
        schedule = self._config.schedule
        if self.validation is None or not self._validates(done):
            return None
        history = DetectionHistory(self.output)
        known = next((one for one in history.epochs if one.step == done), None)
        known = self.world.from_main(known)
        if known is None:
            known = self._validate(done, model, history, log)
        every = self.world.from_main([*history.before(done), known])
        patience = schedule.patience
        stop = patience is not None and waited(every) >= patience
        if stop:
            log(f"mAP has not become better in {patience} validations: the run ends here")
        numbers = {"mAP": known.mean, "loss": known.loss}
        told = {f"validation_{k}": v for k, v in numbers.items() if v is not None}
        return Evaluated(told, stop=stop)

    def _validate(
        self, done: int, model: nn.Module, history: DetectionHistory, log: Log
    ) -> Validated:
        assert isinstance(model, ActionDetector)
        scored, files = self._scores(model, log), BestWeights(self.output)
        now = None
        if self.world.is_main:
            now = history.judged(validated(done, self._mean(scored), scored))
            log(f"validation after {done} steps: {now}")
        found: Validated = self.world.from_main(now)
        if found.best is not None:  # before the line that says so
            best = self._weights(model)  # of all processes, where they are sharded
            if best is not None:
                files.write(done, best)
        if self.world.is_main:
            history.add(found)
            if found.best is not None:
                files.follow(history, saved_steps(self.output))
                log(f"the best so far: kept in {self.output / BEST}")
        return found

    def _validates(self, done: int) -> bool:
        """Whether there is a validation after so many steps."""
        every = self.steps_per_epoch * self._config.schedule.validate_every
        return done > 0 and (done % every == 0 or done == self.fingerprint.total_steps)

    def _return_to(self, step: int) -> None:
        """Validation's history, and the best weights, become those until this step."""
        if self.validation is None or not self.world.is_main:
            return
        history, files = DetectionHistory(self.output), BestWeights(self.output)
        self._told = files.return_to(step, history, validates=self._validates(step))
        files.follow(history, saved_steps(self.output, until=step))

    def _mean(self, scored: list[KeyFrameScores]) -> float | None:
        assert self.validation is not None
        if all(one.failure is not None for one in scored):
            return None
        try:
            return precision_of(self.validation.lists, scored, self.actions.counted).mean
        except ValueError:  # what is annotated lies in key frames that could not be read
            return None

    def _scores(self, model: ActionDetector, log: Log) -> list[KeyFrameScores]:
        """Of all processes' key frames, on every process."""
        assert self.validation is not None
        data, world = self._config.data, self.world
        how = ScoreSettings(
            data.validation_batch,
            data.widened,
            data.person_scores_count,
            uses_bf16(self.settings, world.device) and not shards(model),
            data.workers,
            data.decode_timeout,
        )
        mine = looked_at(self.validation)[world.rank :: world.size]
        with gathered(model):
            scored = list(score_key_frames(model, self.validation, mine, how, world.device))
        every = [one for part in world.gather(scored) for one in part]
        every.sort(key=lambda one: one.place)
        for one in every:
            if one.failure is not None:
                log(f"left out of validation: {one.failure}")
        return every

    def _weights(self, model: ActionDetector) -> ModelWeights | None:
        """Those of a file, for the main process. All call it."""
        every = whole_tensors(model.state_dict(), self.world)
        if not self.world.is_main:
            return None
        state = {key: value.detach().cpu() for key, value in every.items()}
        return ModelWeights(
            "detector",
            model.config,
            state,
            origin_of(str(self.output), "ours", state),
            options=detector_options(model),
            labels=self.actions.labels,
        )
