"""The step of distillation: the same mixed clips for both, a teacher that nothing touches."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from tests.support.tape import TapeRecorder
from videomae_fast import MAEConfig, VideoClassifier
from videomae_fast.data.augment.mixing import MixTensors, mix_clips
from videomae_fast.models.classification_loss import distillation_loss
from videomae_fast.models.feature_alignment import AlignedClassifier, alignment_terms, features_of
from videomae_fast.ops.registry import forced
from videomae_fast.recipes import DistillConfig, changed
from videomae_fast.tasks.engine import engine_settings
from videomae_fast.tasks.imitation import Imitation
from videomae_fast.tasks.teacher import FoundTeacher, RunningTeacher, Teacher
from videomae_fast.training.captured import CapturedStep
from videomae_fast.training.parallel.world import World
from videomae_fast.training.step import TrainStep
from videomae_fast.training.task import Place, Timed

CPU = torch.device("cpu")
WORLD = World(0, 1, CPU)
COUNT, CLASSES = 4, 5
SHAPE = {"image_size": 32, "frames": 4, "heads": 2, "mlp_ratio": 2.0}


def classifier(own: int, seed: int, **options: Any) -> VideoClassifier:
    torch.manual_seed(seed)
    config = MAEConfig(width=own, depth=2, **SHAPE)
    kind = AlignedClassifier if "layers" in options else VideoClassifier
    model = kind(config, CLASSES, init_scale=1.0, **options)
    with torch.no_grad():
        model.head.weight.mul_(20)  # far from even distributions
    return model


def teacher(layers: tuple[int, ...] = (), *, bf16: bool = False) -> Teacher:
    model = classifier(32, 7).requires_grad_(False).eval()
    return Teacher(FoundTeacher(model, "", "", ""), layers, device=CPU, bf16=bf16)


def config(**others: Any) -> DistillConfig:
    given = {
        "model.image_size": 32, "model.drop_path": 0.0, "data.samples": 1,
        "optim.videos_per_step": COUNT, "run.device": "cpu",
        **{name.replace("__", "."): value for name, value in others.items()},
    }  # fmt: skip
    return changed(DistillConfig(), given)


def batch(failed: tuple[int, ...] = (), seed: int = 0) -> Any:
    class Clips(SimpleNamespace):
        def __len__(self) -> int:
            return len(self.frames)

    ok = torch.tensor([i not in failed for i in range(COUNT)])
    frames = torch.randn(COUNT, 4, 32, 32, 3, generator=torch.Generator().manual_seed(seed))
    frames = frames * ok[:, None, None, None, None]
    return Clips(
        frames=frames, labels=torch.arange(COUNT) % CLASSES, ok=ok, mask_seeds=torch.arange(COUNT)
    )


def objective(made: Teacher, **others: Any) -> Imitation:
    return Imitation(config(**others), np.ones(CLASSES, dtype=np.int64), RunningTeacher(made))


def test_the_loss_is_the_closed_form_on_the_very_mixed_clips() -> None:
    made, student = teacher(), classifier(16, 1)
    own = objective(made, distillation__temperature=2.0)
    inputs = own.inputs(batch(), Place(3, 0, 0))
    mix = MixTensors(inputs["own"], inputs["boxes"])
    assert not torch.equal(mix_clips(inputs["frames"], mix), inputs["frames"])
    loss = own.loss(student, inputs, scale=1.0)
    clips = mix_clips(inputs["frames"], mix)
    expected = COUNT * distillation_loss(student(clips), made.model(clips), 2.0)
    assert float(loss.total) == pytest.approx(float(expected.detach()), rel=1e-5)
    p, q = ((model(clips) / 2).softmax(-1) for model in (made.model, student))
    by_hand = 4 * (p * (p.log() - q.log())).sum()
    assert float(loss.total) == pytest.approx(float(by_hand.detach()), rel=1e-4)
    hits = [float(each) for each in loss.metrics]
    assert hits[1] == float((student(clips).argmax(-1) == made.model(clips).argmax(-1)).sum())


def test_labels_have_their_share() -> None:
    made, student, parts = teacher(), classifier(16, 1), {}
    for share in (0.0, 0.25, 0.75):
        own = objective(made, distillation__label_share=share)
        inputs = own.inputs(batch(), Place(0, 0, 0))
        parts[share] = float(own.loss(student, inputs, scale=1.0).total)
        clips, target = own.mixed(inputs)
        labels = float(own.label_terms(student(clips), target, inputs).sum().detach())
    assert parts[0.75] == pytest.approx(0.25 * parts[0.0] + 0.75 * labels, rel=1e-5)
    assert parts[0.25] == pytest.approx(0.75 * parts[0.0] + 0.25 * labels, rel=1e-5)


def test_what_could_not_be_read_has_no_part() -> None:
    own, student = objective(teacher(), mix__mixup=0.0, mix__cutmix=0.0), classifier(16, 1)
    whole = own.loss(student, own.inputs(batch(), Place(0, 0, 0)), scale=1.0)
    partly = own.loss(student, own.inputs(batch((1,)), Place(0, 0, 0)), scale=1.0)
    alone = own.inputs(batch(), Place(0, 0, 0))
    alone["known"] = torch.tensor([False, True, False, False])
    one = own.loss(student, alone, scale=1.0)
    assert (float(partly.weight), int(partly.failed)) == (3, 1)
    assert (float(one.weight), int(one.failed)) == (1, 3)
    assert float(partly.total + one.total) == pytest.approx(float(whole.total), rel=1e-5)


@pytest.mark.parametrize("mode", ["logits", "features"])
def test_the_teacher_is_untouched_and_the_student_learns(mode: str) -> None:
    layers = (2, 1) if mode == "features" else ()
    made = teacher(layers)
    before = {name: value.clone() for name, value in made.state_dict().items()}
    options = {"layers": layers, "width": 32} if layers else {}
    student = classifier(16, 1, **options)
    student.head.requires_grad_(mode == "logits")  # as a run has it without a label share
    own = objective(made, distillation__mode=mode, optim__base_lr=1.0)
    settings = engine_settings(own.config.data, own.config.optim, own.config.run)
    step = TrainStep(own, student, settings, WORLD)
    losses = []
    for number in range(6):
        step.forward_backward(batch(), step=0, micro=0)
        assert all(parameter.grad is None for parameter in made.parameters())
        assert number or all(
            p.grad is not None for n, p in student.named_parameters()
            if mode == "logits" or not n.startswith("head.")
        )  # fmt: skip
        row = dict(zip(step.columns, step.update(3e-3).tolist(), strict=True))
        losses.append(row["loss_sum"])
    assert losses[-1] < 0.8 * losses[0]
    assert not made.training
    assert not any(parameter.requires_grad for parameter in made.parameters())
    for name, value in made.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_features_are_aligned_with_those_of_the_mixed_clips() -> None:
    made, student = teacher((2, 1)), classifier(16, 1, layers=(2, 1), width=32)
    own = objective(made, distillation__mode="features")
    inputs = own.inputs(batch(), Place(3, 0, 0))
    clips, _ = own.mixed(inputs)
    _, streams, pooled = student(clips, aligned=True)
    expected = alignment_terms(streams, pooled, features_of(made.model, clips, (2, 1))).sum()
    loss = own.loss(student, inputs, scale=1.0)
    assert float(loss.total) == pytest.approx(float(expected.detach()), rel=1e-5)


def test_a_teacher_in_bf16_is_the_one_under_autocast_with_half_the_memory() -> None:
    small, plain = teacher(bf16=True), teacher()
    clips = torch.randn(2, 4, 32, 32, 3)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        said, expected = small(clips)[0], plain(clips)[0]
    assert said.dtype == torch.bfloat16
    assert torch.equal(said, expected)
    sizes = [
        sum(p.numel() * p.element_size() for p in each.parameters()) for each in (small, plain)
    ]
    assert sizes[0] < 0.55 * sizes[1]


def test_a_captured_step_has_the_teacher_in_it() -> None:
    with forced("reference", attention="sdpa", linear="torch"):
        found = []
        for recorder in (None, TapeRecorder()):
            own = objective(teacher())
            settings = engine_settings(own.config.data, own.config.optim, own.config.run)
            parts = own, classifier(16, 1), settings, WORLD
            step = TrainStep(*parts) if recorder is None else CapturedStep(*parts, recorder)
            rows = []
            for number in range(3):
                step.forward_backward(batch(seed=number), step=number, micro=0)
                rows.append(step.update(1e-3).tolist())
            found.append(rows)
    assert found[1] == [pytest.approx(row, rel=1e-5) for row in found[0]]
    assert recorder is not None
    assert recorder.calls.count("replay") == 3


def test_what_the_teacher_costs_is_told() -> None:
    own = objective(teacher())
    assert isinstance(own, Timed)
    own.loss(classifier(16, 1), own.inputs(batch(), Place(0, 0, 0)), scale=1.0)
    first = own.ms_per_step(1)["teacher"]
    assert first > 0
    assert own.ms_per_step(1) == {"teacher": 0.0}, "counted once"
