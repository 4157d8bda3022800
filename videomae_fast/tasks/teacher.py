"""A frozen classifier that a student learns from: read, checked, run and timed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn

from videomae_fast.errors import UsageError, WeightsError
from videomae_fast.interop import ModelWeights, SourceHints, select_classes
from videomae_fast.interop.weights.check import check_finite
from videomae_fast.interop.weights.encoder import weights_digest
from videomae_fast.masks import Grid
from videomae_fast.models.classifier import VideoClassifier
from videomae_fast.models.config import MAEConfig
from videomae_fast.models.feature_alignment import Features, features_of
from videomae_fast.models.matmul_parameters import matmul_parameters
from videomae_fast.recipes.distillation import Distillation
from videomae_fast.tasks.classifier_weights import rows_of_classes
from videomae_fast.tasks.labelled import Classes
from videomae_fast.tasks.testing import classifier_weights, weights_path
from videomae_fast.training.parallel.world import World
from videomae_fast.training.task import Place


@dataclass(frozen=True)
class Said:
    """What a teacher says of clips.

    Attributes:
        logits: float [B, classes].
        features: of chosen layers, None where they are not asked for.
    """

    logits: Tensor
    features: Features | None = None


class TeacherSource(Protocol):
    """Where a step has from what the teacher says of its clips."""

    def inputs(self, place: Place) -> Mapping[str, Tensor]:
        """What a micro-batch's step gets beside its clips; ``known``, bool [B], is False for clips
        that nothing is known of."""
        ...

    def say(self, clips: Tensor, inputs: Mapping[str, Tensor]) -> Said:
        """Of clips [B, T, H, W, 3], normalised and mixed. Reads nothing from the device."""
        ...

    def ms_per_step(self, steps: int) -> float:
        """What that cost in the `steps` since the last call, which the device was waited for."""
        ...


@dataclass(frozen=True)
class FoundTeacher:
    """A teacher's model as it was read.

    Attributes:
        model: on the CPU, in evaluation mode, fp32, its head's rows the run's classes.
        digest: SHA-256 of these weights.
        told: which rows of the head they are, and why.
        name: the file or folder.
    """

    model: VideoClassifier
    digest: str
    told: str
    name: str


class _Hints(SourceHints):
    """Hints that are told by the options that gave them."""

    def check(self, config: MAEConfig, origin: str) -> None:
        for name in ("frames", "image_size"):
            value, own = getattr(self, name), getattr(config, name)
            if value is not None and value != own:
                raise WeightsError(
                    f"{origin}: says that its positions are for {name} {own}, not {value}: leave "
                    f"--teacher-trained-{name.replace('_', '-')} out"
                )


def find_teacher(section: Distillation, classes: Classes, world: World) -> FoundTeacher:
    """Reads the teacher's weights and picks the rows of the run's classes.

    Raises:
        UsageError: none is named, or it is no classifier.
        WeightsError: it can't be read, is not finite, or has other classes than the run.
    """
    if section.teacher is None:
        raise UsageError(
            "distillation.teacher names no weights: give the teacher's with --teacher WEIGHTS"
        )
    path = weights_path(Path(section.teacher))
    if not path.exists():
        raise UsageError(f"--teacher {path}: no such weights")
    hints = _Hints(frames=section.trained_frames, image_size=section.trained_image_size)
    weights, told = _of_classes(classifier_weights(path, hints), classes)
    check_finite(weights.state, origin=str(path))
    model = weights.model()
    assert isinstance(model, VideoClassifier)
    digest = world.from_main(weights_digest(model) if world.is_main else None)
    return FoundTeacher(model.requires_grad_(False), digest, told, str(path))


def _of_classes(weights: ModelWeights, classes: Classes) -> tuple[ModelWeights, str]:
    rows, why = rows_of_classes(weights, classes)
    if rows is None:
        raise WeightsError(
            f"{weights.origin.name}: the teacher's head {why}: a teacher has to know the run's "
            "classes; give another one, or name the classes right (--classes)"
        )
    if rows != list(range(weights.classes)):
        weights = select_classes(weights, rows)
    return weights, why


def check_clips(teacher: MAEConfig, student: MAEConfig, *, features: bool) -> None:
    """Checks that a teacher takes the student's clips.

    Args:
        teacher, student: of the models; the student's clip size and length are the run's.
        features: whether their time slots must be the same, too.

    Raises:
        UsageError: they don't divide into the teacher's cubes, or the slots differ.
    """
    side = student.image_size
    size = (side, side) if isinstance(side, int) else side
    try:
        grid = Grid.of(student.frames, size, teacher.tubelet_size, teacher.patch_size)
    except ValueError as error:
        raise UsageError(f"the teacher can't take the student's clips: {error}") from None
    if features and grid.slots != student.grid.slots:
        raise UsageError(
            f"of a clip the teacher has {grid.slots} time slots and the student "
            f"{student.grid.slots}: features are aligned slot by slot; use mode logits"
        )


class Teacher(nn.Module):
    """The model on the run's device, without gradients and draws.

    In bf16 the weights that only matmuls read are kept in bf16, which autocast would cast them to:
    the same outputs bit for bit, half the memory, no casts.

    Args:
        found: whose model is taken over.
        layers: numbers of blocks after which features are taken; none: logits alone.
        device: of the run.
        bf16: whether its steps are under bf16 autocast.
        compiled: run it under ``torch.compile``.
    """

    def __init__(
        self,
        found: FoundTeacher,
        layers: Sequence[int],
        *,
        device: torch.device,
        bf16: bool,
        compiled: bool = False,
    ) -> None:
        super().__init__()
        self.model, self.layers, self.bf16 = found.model, tuple(layers), bf16
        if bf16:
            for name in matmul_parameters(self.model):
                parameter = self.model.get_parameter(name)
                parameter.data = parameter.data.bfloat16()
        self.to(device).requires_grad_(False).eval()
        if compiled:
            self.compile()

    def forward(self, frames: Tensor) -> tuple[Tensor, tuple[Tensor, ...], Tensor | None]:
        """Logits [B, classes], features by layer [B, t, h, w, width], and pooled [B, width]."""
        if not self.layers:
            return self.model(frames), (), None
        found = features_of(self.model, frames, self.layers)
        return self.model.head(found.pooled), found.layers, found.pooled


class RunningTeacher:
    """A teacher that sees the very clips that the student sees, in each step.

    Args:
        teacher: on the run's device.
    """

    def __init__(self, teacher: Teacher) -> None:
        self.teacher = teacher
        self._clock = Clock(next(teacher.parameters()).device)

    def inputs(self, place: Place) -> Mapping[str, Tensor]:
        return {}

    @torch.no_grad()
    def say(self, clips: Tensor, inputs: Mapping[str, Tensor]) -> Said:
        kind, bf16 = clips.device.type, self.teacher.bf16
        with self._clock.running(), torch.autocast(kind, torch.bfloat16, enabled=bf16):
            logits, layers, pooled = self.teacher(clips)
        return Said(logits, None if pooled is None else Features(layers, pooled))

    def ms_per_step(self, steps: int) -> float:
        return self._clock.ms_per_step(steps)


class Clock:
    """What a part of the steps costs: by the device's own events on a GPU.

    Where a step is recorded as a CUDA graph, events lie in it, and tell of its last replay.

    Args:
        device: that the part runs on.
    """

    def __init__(self, device: torch.device) -> None:
        self._cuda = device.type == "cuda"
        self._ms = 0.0
        self._pairs: list[tuple[torch.cuda.Event, torch.cuda.Event]] = []
        self._recorded: list[tuple[torch.cuda.Event, torch.cuda.Event]] = []

    @contextmanager
    def running(self) -> Iterator[None]:
        """Around the part."""
        if not self._cuda:
            begin = time.perf_counter()
            yield
            self._ms += 1000 * (time.perf_counter() - begin)
            return
        recording = torch.cuda.is_current_stream_capturing()
        if recording:
            self._pairs.clear()  # of the runs before it
        make: Callable[..., torch.cuda.Event] = torch.cuda.Event
        begun, ended = (make(enable_timing=True, external=recording) for _ in range(2))
        begun.record()
        yield
        ended.record()
        (self._recorded if recording else self._pairs).append((begun, ended))

    def ms_per_step(self, steps: int) -> float:
        """Milliseconds of a step, in the mean over those since the last call."""
        ms, self._ms = self._ms, 0.0
        ms += _elapsed(self._pairs)
        self._pairs.clear()
        return ms / max(1, steps) + _elapsed(self._recorded)


def _elapsed(pairs: Sequence[tuple[torch.cuda.Event, torch.cuda.Event]]) -> float:
    return float(sum(begun.elapsed_time(ended) for begun, ended in pairs))
