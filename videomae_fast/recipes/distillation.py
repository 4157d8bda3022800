"""What a distillation run is made of: a fine-tuning run's sections, and the teacher's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from videomae_fast.recipes.classification import FinetuneConfig
from videomae_fast.recipes.fields import Section, SettingError, option

LAYERS = 6
"""Layers that are aligned where nobody says how many."""


@dataclass(frozen=True)
class Distillation(Section):
    """The teacher, and what the student takes from it. The model above is the student."""

    teacher: str | None = option(
        None,
        "weights of the teacher: a classifier in any layout that convert reads, or a run's folder; "
        "must be given. It may lie elsewhere when a run is resumed, but be no other",
        resumable=True,
    )
    mode: Literal["logits", "features"] = option(
        "logits",
        "logits: the student says of a mixed clip what the teacher says of it; features: its token "
        "and pooled vectors, projected, point where the teacher's do",
        flat="distill_mode",
    )
    temperature: float = option(
        1.0, "that the logits of both are divided by, in mode logits", above=0
    )
    label_share: float = option(
        0.0,
        "share of the labels' cross-entropy in the loss, mixed and smoothed as in fine-tuning; the "
        "teacher has the rest",
        least=0,
        below=1,
    )
    layers: int | None = option(
        None,
        f"last layers of the student that are aligned in mode features (none: {LAYERS}, or all "
        "that it has)",
        unit="blocks",
        least=1,
        flat="aligned_layers",
    )
    outputs: str | None = option(
        None,
        "folder of the teacher's outputs for fixed views: made where missing, then read in place "
        "of running the teacher; for mode logits without mixup and cutmix (none: the teacher runs "
        "in each step). It may lie elsewhere when a run is resumed",
        resumable=True,
        flat="teacher_outputs",
    )
    views: int | None = option(
        None,
        "fixed views of each video in that folder, augmented as they are drawn once; epochs take "
        "them in turn (none: 1)",
        unit="times samples_per_video clips",
        least=1,
        flat="teacher_views",
    )
    trained_image_size: int | None = option(
        None,
        "clip size that official weights' positions are for (none: 224)",
        unit="pixels",
        least=1,
        flat="teacher_trained_image_size",
    )
    trained_frames: int | None = option(
        None,
        "clip length that official weights' positions are for (none: 16)",
        unit="frames",
        least=1,
        flat="teacher_trained_frames",
    )


@dataclass(frozen=True)
class DistillConfig(FinetuneConfig):
    """A distillation run: a student is trained on what a teacher says."""

    task: ClassVar[str] = "distill"

    distillation: Distillation = Distillation()

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, contradicts, told in _contradictions(self):
            if contradicts:
                raise SettingError(f"distillation.{name}", f"distillation.{name} {told}")


def _contradictions(config: DistillConfig) -> tuple[tuple[str, bool, str], ...]:
    """Fields that another one makes meaningless: name, whether, and what to do."""
    own, features = config.distillation, config.distillation.mode == "features"
    mixed = config.mix.mixup > 0 or config.mix.cutmix > 0
    return (
        (
            "temperature",
            features and own.temperature != 1,
            "softens logits, and mode features has none: leave it out",
        ),
        (
            "layers",
            not features and own.layers is not None,
            "are aligned in mode features alone: leave it out, or give --distill-mode features",
        ),
        (
            "views",
            own.outputs is None and own.views is not None,
            "are those of stored outputs: give their folder (--teacher-outputs), or leave it out",
        ),
        (
            "outputs",
            own.outputs is not None and features,
            "are logits, and mode features takes vectors of every token, which are not stored: "
            "leave it out, or take mode logits",
        ),
        (
            "outputs",
            own.outputs is not None and mixed,
            "can't be mixed: what a teacher says of a mixed clip is not the mixture of what it "
            "says of the two. Set mixup and cutmix to 0 (--mixup 0 --cutmix 0), or leave it out, "
            "so that the teacher sees the mixed clips",
        ),
        (
            "outputs",
            own.outputs is not None and config.data.device_decoder != "none",
            "are of frames that loader processes decode, and data.device_decoder gives slightly "
            "other ones: set it to none",
        ),
        (
            "label_share",
            own.label_share == 0 and config.optim.class_weights != "none",
            "is 0, so optim.class_weights would weigh nothing: raise the one, or leave the other "
            "out",
        ),
        (
            "label_share",
            own.label_share == 0 and features and bool(config.data.validation),
            "is 0, so that mode features does not train the head, which validation would score: "
            "raise it, or leave data.validation out and fine-tune from the run's folder",
        ),
    )
