"""What a fine-tuning run is made of: the sections that differ from pre-training's.

The defaults are those that the official recipes have in common, and ViT-B's on Kinetics-400.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from videomae_fast.recipes.fields import Config, Section, SettingError, option
from videomae_fast.recipes.schema import Encoder, Optim, Reading, Run, Schedule
from videomae_fast.recipes.source import Source


@dataclass(frozen=True)
class ClassifierModel(Encoder):
    """The classifier: an official size, what differs from it, and its head."""

    drop_path: float = option(
        0.1,
        "stochastic depth rate of the last block; drawn for each clip from its own seed, as masks "
        "are, so it is the same in any number of processes",
        least=0,
        below=1,
    )
    head_dropout: float = option(0.0, "dropout before the head", least=0, below=1)
    init_scale: float = option(0.001, "factor on a new head's initial weights", least=0)
    head_index: str | None = option(
        None,
        "rows of the head of the weights to start from that are the run's classes, by label: an "
        "official JSON list as label_710to400.json, or a row number a line (none: by the classes' "
        "names)",
    )
    trained_image_size: int | tuple[int, int] | None = option(
        None,
        "clip size that the positions of the weights to start from are for (none: image_size)",
        unit="pixels",
        least=1,
    )
    trained_frames: int | None = option(
        None,
        "clip length that the positions of the weights to start from are for (none: frames)",
        unit="frames",
        least=1,
    )
    other_grids: Literal["interpolated", "recomputed"] = option(
        "interpolated",
        "positions where clips differ from that: interpolated, or recomputed as officially, which "
        "misplaces the rows of trained weights",
    )


@dataclass(frozen=True)
class LabelledData(Reading):
    """Which labelled clips are drawn and validated, and how they come to the device."""

    samples: int = option(
        2,
        "clips of each decoded video, of the same frames and augmented each by itself",
        unit="clips",
        least=1,
        flat="samples_per_video",
    )
    validation: tuple[Source, ...] = option(
        (),
        "lists that are validated after each epoch; where they lie may change when a run is "
        "resumed (none: nothing is validated)",
    )
    classes: str | None = option(
        None,
        "names of the classes by label: a file with one a line, or kinetics-400, -600, -700, -710 "
        "(none: as many as the largest label of the lists says, without names)",
    )
    sampling: Literal["dense", "sparse"] = option(
        "dense",
        "frames of a clip: neighbours at the stride (dense), or one of each of equal parts of the "
        "video (sparse, as for Something-Something)",
    )
    validation_batch: int = option(
        8, "of a batch of each process while validating", unit="videos", least=1, resumable=True
    )


@dataclass(frozen=True)
class Augment(Section):
    """How training clips are changed at random, each by itself."""

    operations: int = option(
        4, "of RandAugment, drawn for each clip; 0 leaves it out", least=0, flat="rand_augment"
    )
    magnitude: float = option(
        7.0, "mean magnitude of these operations", least=0, most=10, flat="rand_augment_magnitude"
    )
    deviation: float = option(
        0.5, "standard deviation of the magnitude", least=0, flat="rand_augment_deviation"
    )
    applied: float = option(
        0.5,
        "probability that a drawn operation is done",
        least=0,
        most=1,
        flat="rand_augment_probability",
    )
    area: tuple[float, float] = option(
        (0.08, 1.0), "share of the frame that a crop takes", above=0, most=1, flat="crop_area"
    )
    aspect: tuple[float, float] = option(
        (0.75, 1.3333), "width / height of a crop", above=0, flat="crop_aspect"
    )
    flip: float = option(
        0.5, "probability of a flip from left to right; 0 where directions are classes",
        least=0, most=1,
    )  # fmt: skip
    erase: float = option(0.25, "probability of a hole filled with noise", least=0, most=1)
    erase_area: tuple[float, float] = option(
        (0.02, 1 / 3), "share of the clip that a hole takes", above=0, most=1
    )
    erase_aspect: tuple[float, float] = option((0.3, 1 / 0.3), "height / width of a hole", above=0)


@dataclass(frozen=True)
class Mix(Section):
    """How clips of a micro-batch, and their labels, are mixed with one another."""

    mixup: float = option(0.8, "alpha of mixup; 0 leaves it out", least=0, most=8)
    cutmix: float = option(1.0, "alpha of cutmix; 0 leaves it out", least=0, most=8)
    probability: float = option(
        1.0, "that clips are mixed at all", least=0, most=1, flat="mix_probability"
    )
    switch: float = option(
        0.5, "probability of cutmix where both are on", least=0, most=1, flat="mix_switch"
    )
    mode: Literal["batch", "pair", "elem"] = option(
        "batch",
        "one draw for the whole micro-batch, for each pair of clips, or for each clip",
        flat="mix_mode",
    )
    smoothing: float = option(
        0.1,
        "share of a label that is spread over all classes",
        least=0,
        below=1,
        flat="label_smoothing",
    )


@dataclass(frozen=True)
class FinetuneOptim(Optim):
    """The step: its videos, its learning rates by layer, and what is done with the gradient."""

    videos_per_step: int = option(
        512,
        "of an optimizer step over all processes; the learning rate scales with it",
        unit="videos",
        least=1,
    )
    accumulation: int = option(
        1,
        "parts that a process splits its share of a step into: less memory, the same gradient, but "
        "clips are mixed within each",
        unit="micro-batches",
        least=1,
    )
    base_lr: float = option(7e-4, "peak learning rate for 256 videos per step", least=0)
    min_lr: float = option(
        1e-6,
        "end of the cosine for 256 videos per step (scaled like the peak, as officially)",
        least=0,
    )
    betas: tuple[float, float] = option((0.9, 0.999), "AdamW's two decay rates", least=0, below=1)
    weight_decay: float = option(
        0.05, "of weights; 1-D parameters, biases and positions have none", least=0
    )
    layer_decay: float = option(
        0.75, "factor of the learning rate from a layer to the one below it", above=0, most=1
    )
    ema_decay: float = option(
        0.0, "of a moving average of the weights, which is validated too; 0 keeps none",
        least=0, below=1,
    )  # fmt: skip
    class_weights: Literal["none", "balanced"] = option(
        "none", "balanced: classes weigh in the loss as if all had equally many training videos"
    )


@dataclass(frozen=True)
class FinetuneSchedule(Schedule):
    """How long the run is, and how the learning rate goes."""

    epochs: int = option(90, "length of the run", unit="epochs", least=1, resumable=True)
    warmup_epochs: int = option(5, "linear warm-up", unit="epochs", least=0)
    patience: int | None = option(
        None,
        "end the run when validation's top-1 has not become better for so long (none: never)",
        unit="epochs",
        least=1,
        resumable=True,
    )


@dataclass(frozen=True)
class FinetuneConfig(Config):
    """A fine-tuning run."""

    task: ClassVar[str] = "finetune"

    model: ClassifierModel = ClassifierModel()
    data: LabelledData = LabelledData()
    augment: Augment = Augment()
    mix: Mix = Mix()
    optim: FinetuneOptim = FinetuneOptim()
    schedule: FinetuneSchedule = FinetuneSchedule()
    run: Run = field(default_factory=Run)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.schedule.patience is not None and not self.data.validation:
            raise SettingError(
                "schedule.patience",
                "schedule.patience waits for a better validation, and data.validation names no "
                "list: give one, or leave patience out",
            )
        size = self.model.image_size
        if isinstance(size, tuple) and size[0] != size[1]:
            raise SettingError(
                "model.image_size",
                f"model.image_size {size[0]}x{size[1]}: clips of a classifier are squares, since "
                "validation and test cut squares; give one side",
            )
