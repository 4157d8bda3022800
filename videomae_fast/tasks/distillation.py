"""Distillation: a student is trained on what a teacher says of the same clips."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn

from videomae_fast.data.dataset import ClipDataset
from videomae_fast.data.fixed_views import FixedViews
from videomae_fast.data.loader.pipeline import ClipBatch, StepDraws
from videomae_fast.errors import UsageError
from videomae_fast.evaluation.chance import verdict
from videomae_fast.models.classifier import VideoClassifier
from videomae_fast.models.feature_alignment import ALIGNMENT, AlignedClassifier, aligned_layers
from videomae_fast.recipes.distillation import LAYERS, DistillConfig
from videomae_fast.tasks.classification import Classification, check_model, classifier_options
from videomae_fast.tasks.engine import engine_settings, set_options, shape_of
from videomae_fast.tasks.imitation import Imitation
from videomae_fast.tasks.labelled import training_clips
from videomae_fast.tasks.pinned import pinned
from videomae_fast.tasks.teacher import (
    FoundTeacher,
    RunningTeacher,
    Teacher,
    TeacherSource,
    check_clips,
    find_teacher,
)
from videomae_fast.tasks.teacher_outputs import Rows, StoredOutputs, made_from, make_whole
from videomae_fast.training.checkpoint import Log
from videomae_fast.training.loop import RunResult, run
from videomae_fast.training.metrics import read_metrics
from videomae_fast.training.parallel.world import World
from videomae_fast.training.step import uses_bf16
from videomae_fast.training.task import Evaluated, Settings

METRICS: Final = "metrics.jsonl"
_EVERY_STEP: Final = range(0)  # the part of a step is asked for by its number


def distill(
    config: DistillConfig, *, output: str | Path, resume: str = "auto", log: Log = print
) -> RunResult:
    """Trains a student on a teacher's outputs: the whole run, or what is left of it.

    Args:
        config: what the run is made of.
        output: folder, made where missing; it holds what
            :func:`~videomae_fast.tasks.classification.finetune` says.
        resume: "auto", "never", or a checkpoint folder to go on from.
        log: takes progress lines, in the main process only.

    Raises:
        VideoMAEFastError: what stops a run; each kind says what was saved and what to do.
    """
    check_model(config)  # before any process starts on anything
    settings = engine_settings(config.data, config.optim, config.run)
    return run(
        lambda world: Distillation(
            pinned(config, output, resume, world),
            settings,
            world,
            Path(output),
            log if world.is_main else _quiet,
        ),
        settings,
        output=output,
        resume=resume,
        log=log,
    )


class Distillation(Classification):
    """A distillation run's data, student and teacher.

    What validates, saves and goes on is fine-tuning's. The teacher is the objective's alone: it is
    in no checkpoint, but its digest is, and a run goes on with no other one.

    Args:
        config, settings, world, output: as of :class:`Classification`.
        log: is told of the teacher.

    Raises:
        UsageError, ListError: the config, or a data list, asks for what can't be.
        WeightsError: the teacher can't be read, or knows other classes.
    """

    name = "distill"
    activity = "distills"

    def __init__(
        self, config: DistillConfig, settings: Settings, world: World, output: Path, log: Log
    ) -> None:
        self._distill, self._log, self._judged = config, log, False
        self._stored: StoredOutputs | None = None
        super().__init__(config, settings, world, output)
        fixed = self.dataset.views if isinstance(self.dataset, FixedViews) else None
        self.data = {**self.data, "teacher": self._digest, "fixed_views": fixed}

    def _training_clips(self) -> ClipDataset:
        own = self._distill.distillation
        if own.outputs is None:
            return training_clips(self._distill)
        return training_clips(self._distill, partial(FixedViews, views=own.views or 1))

    def _objective(self) -> Imitation:
        config, own, student = self._distill, self._distill.distillation, shape_of(self._distill)
        found = find_teacher(own, self.classes, self.world)
        teacher, features = found.model.config, own.mode == "features"
        check_clips(teacher, student, features=features)
        self._pairs: list[tuple[int, int]] = []
        if features:
            count = min(LAYERS, student.depth) if own.layers is None else own.layers
            try:
                self._pairs = aligned_layers(student.depth, teacher.depth, count)
            except ValueError as error:
                raise UsageError(f"distillation.layers: {error}") from None
        weights = sum(each.numel() for each in found.model.parameters()) / 1e6
        self._digest, self._width = found.digest, teacher.width
        self._of_teacher = [
            f"teacher {found.name}: width {teacher.width}, depth {teacher.depth}, {weights:.3g} "
            f"million parameters, weights' sha256 {found.digest}",
            f"the teacher's head: {found.told}",
        ]
        return Imitation(config, self.counts, self._source(found))

    def _source(self, found: FoundTeacher) -> TeacherSource:
        bf16 = uses_bf16(self.settings, self.world.device)
        teacher = partial(
            Teacher,
            found,
            [layer for _, layer in self._pairs],
            device=self.world.device,
            bf16=bf16,
            compiled=self.settings.step_mode == "compiled",
        )
        folder = self._distill.distillation.outputs
        if folder is None:
            return RunningTeacher(teacher())
        config, dataset, world = self._distill, self.dataset, self.world
        assert isinstance(dataset, FixedViews)
        about = made_from(
            config,
            dataset,
            found.digest,
            found.model.config,
            classes=self.classes.count,
            bf16=bf16,
            device=world.device,
        )
        shape = (dataset.samples, self.classes.count)
        rows = Rows(Path(folder), about, dataset.views * dataset.entries, shape)
        rows.check()
        self._of_teacher.append(f"its outputs are read from {folder}: it does not run")
        optim = config.optim
        draws = StepDraws(
            dataset, optim.videos_per_step, optim.accumulation, _EVERY_STEP, world.rank, world.size
        )
        self._stored = StoredOutputs(rows, draws)
        self._make_whole = partial(make_whole, rows, dataset, teacher, config, world, self._log)
        return self._stored

    def batches(self, start_step: int) -> Iterator[ClipBatch]:
        """As fine-tuning's. First the teacher says what is not stored yet: only here it is known
        that the run may go on."""
        if self._stored is not None and start_step < self.fingerprint.total_steps:
            self._make_whole()
            self._stored.open()
        return super().batches(start_step)

    def describe(self) -> str:
        lines = [super().describe(), *self._of_teacher]
        if self._pairs:
            told = ", ".join(f"{mine} and {theirs}" for mine, theirs in self._pairs)
            lines.append(f"aligned layers, of the student and the teacher: {told}; and the pooled")
        if self._pairs and self._distill.distillation.label_share == 0:
            lines.append(
                "labels have no share, so the head stays as it began: fine-tune from this run next"
            )
        return "\n".join(lines)

    def model(self) -> VideoClassifier:
        if not self._pairs:
            return super().model()
        config = self._distill
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.run.seed)
            model = AlignedClassifier(
                shape_of(config),
                self.classes.count,
                layers=[layer for layer, _ in self._pairs],
                width=self._width,
                **classifier_options(config),
            )
        set_options(model, config.run)
        # What has no part in the loss has no gradient, which processes would wait for
        model.head.requires_grad_(config.distillation.label_share > 0)
        return model

    def begin(self, model: nn.Module, log: Log) -> dict[str, Any] | None:
        if not isinstance(model, AlignedClassifier):
            return super().begin(model, log)
        with model.without_alignment():
            return super().begin(model, log)

    def epoch_done(self, done: int, model: nn.Module, log: Log) -> Evaluated | None:
        """As fine-tuning's; and warns, once, of a teacher that does not know the labels."""
        if not self._judged and self.world.is_main:
            steps = [one for one in read_metrics(self.output / METRICS) if one["step"] < done]
            warning = guessing(steps, self.classes.count)
            self._judged = bool(steps)
            if warning is not None:
                log(warning)
        return super().epoch_done(done, model, log)

    def _classifier(self, model: nn.Module) -> Mapping[str, Tensor]:
        state = super()._classifier(model)
        return {key: value for key, value in state.items() if not key.startswith(ALIGNMENT)}


def guessing(steps: Sequence[Mapping[str, Any]], classes: int) -> str | None:
    """A warning where a teacher's word on training clips is the label no more often than by chance.

    Args:
        steps: of ``metrics.jsonl``.
        classes: of the run.
    """
    told = [one for one in steps if one.get("teacher_accuracy") is not None]
    clips = sum(int(one["clips"]) - int(one["failed_clips"]) for one in told)
    if not clips or classes < 2:
        return None
    right = sum(
        one["teacher_accuracy"] * (int(one["clips"]) - int(one["failed_clips"])) for one in told
    )
    chance = 1 / classes
    if verdict(right / clips, clips, chance) != "guessing":
        return None
    return (
        f"warning: of {clips} training clips the teacher names the label of {right / clips:.1%}, "
        f"which is guessing among {classes} classes. Likely causes: its head and the lists number "
        "the classes differently (name them on both sides: --classes, convert --labels); its clips "
        "had another size, length or stride; or it was not trained for these classes"
    )


def _quiet(_: str) -> None:
    """The log of all processes but the main one."""
