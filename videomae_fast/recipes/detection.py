"""What a detection run is made of: the sections that differ from pre-training's.

The defaults are those that the official recipes for AVA have in common, and ViT-B's.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from videomae_fast.recipes.box_source import BoxSource
from videomae_fast.recipes.fields import Config, Section, SettingError, option
from videomae_fast.recipes.schema import Encoder, Optim, Reading, Run, Schedule


@dataclass(frozen=True)
class DetectorModel(Encoder):
    """The detector: an official size, what differs from it, and what is done with boxes."""

    image_size: int | tuple[int, int] = option(
        224, "side of the square that training cuts; tests take whole frames", unit="pixels",
        least=1,
    )  # fmt: skip
    drop_path: float = option(
        0.2,
        "stochastic depth rate of the last block; drawn for each clip from its own seed, so it is "
        "the same in any number of processes",
        least=0,
        below=1,
    )
    head_dropout: float = option(0.0, "dropout before the head", least=0, below=1)
    init_scale: float = option(0.001, "factor on a new head's initial weights", least=0)
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
    init_norm: Literal["new", "fc_norm"] = option(
        "new",
        "the norm of tokens where the weights to start from are a classifier's, which has none: "
        "new (officially), or its fc_norm, which was learned for their mean",
    )
    pixels: Literal["slowfast", "imagenet"] = option(
        "slowfast", "mean and deviation that frames are normalised with"
    )
    bins: int = option(7, "of RoIAlign along each side of a box", least=1)
    sampling_ratio: int = option(
        0, "samples of RoIAlign along each side of a bin; 0 takes one per begun cell", least=0
    )
    aligned: bool = option(False, "RoIAlign shifts boxes by half a cell")


@dataclass(frozen=True)
class BoxData(Reading):
    """Which key frames are drawn and validated, and how they come to the device."""

    lists: tuple[BoxSource, ...] = option(  # type: ignore[assignment]
        (), "lists of key frames, see below; where they lie may change when a run is resumed",
        flat="data",
    )  # fmt: skip
    validation: tuple[BoxSource, ...] = option(
        (),
        "lists that are validated after each epoch; where they lie may change when a run is "
        "resumed (none: nothing is validated)",
    )
    classes: int | None = option(
        None,
        "actions, with numbers from 1 (none: the greatest number of the label map, else of the "
        "categories of the training lists, else of their boxes)",
        least=1,
    )
    label_map: str | None = option(
        None,
        'file with the actions that count in the score, as AVA\'s: item { name: "sit" id: 11 } '
        "(none: all, by the categories of the lists)",
        resumable=True,
    )
    samples: int = option(
        1,
        "clips of each decoded key frame, each cut and changed by itself",
        unit="clips",
        least=1,
        flat="samples_per_video",
    )
    short_side: int = option(
        256, "that frames are resized to, in training and tests", unit="pixels", least=1
    )
    longest_short_side: int | None = option(
        None,
        "training draws the short side between short_side and this (none: it is short_side)",
        unit="pixels",
        least=1,
    )
    max_boxes: int = option(
        100, "of a training clip; of more, so many are drawn", unit="boxes", least=1
    )
    person_score: float = option(
        0.8, "detected persons with a lower score are left out", least=0, most=1
    )
    add_proposals: float | None = option(
        None,
        "training also takes detected persons whose IoU with an annotated one is at least this, "
        "with its actions (none: annotated boxes only, as officially)",
        above=0,
        most=1,
    )
    validation_batch: int = option(
        8, "of a batch of each process while validating", unit="clips", least=1, resumable=True
    )
    widened: tuple[float, float] = option(
        (0.1, 0.05), "tests widen boxes by these shares of their width and height", least=0
    )
    person_scores_count: bool = option(
        True, "the score of an action is multiplied by that of its person"
    )


@dataclass(frozen=True)
class BoxAugment(Section):
    """How training clips and their boxes are changed at random."""

    called: ClassVar[str] = "augment"

    flip: float = option(
        0.5, "probability of a flip from left to right; 0 where directions are classes",
        least=0, most=1,
    )  # fmt: skip
    hue: int = option(10, "greatest shift of the hue, of 180", least=0, most=180)
    saturation: int = option(26, "greatest shift of the saturation, of 255", least=0, most=255)
    value: int = option(26, "greatest shift of the value, of 255", least=0, most=255)
    outwards: tuple[float, float] = option(
        (0.2, 0.1), "how far an edge of a box may move out, in shares of its width and height",
        least=0,
    )  # fmt: skip
    inwards: tuple[float, float] = option(
        (0.1, 0.05), "how far an edge of a box may move in, in shares of its width and height",
        least=0, below=0.5,
    )  # fmt: skip
    boxes: Literal["repaired", "official"] = option(
        "repaired",
        "boxes outside of the square that is cut: left out (repaired), or kept as slivers at its "
        "edge with their actions (official)",
        flat="outside_boxes",
    )


@dataclass(frozen=True)
class DetectOptim(Optim):
    """The step: its clips, its learning rates by layer, and what is done with the gradient."""

    videos_per_step: int = option(
        128,
        "key frames of an optimizer step over all processes; the learning rate scales with it",
        unit="clips",
        least=1,
    )
    base_lr: float = option(2.5e-4, "peak learning rate for 256 clips per step", least=0)
    min_lr: float = option(
        1e-6,
        "end of the cosine for 256 clips per step (scaled like the peak, as officially)",
        least=0,
    )
    betas: tuple[float, float] = option((0.9, 0.999), "AdamW's two decay rates", least=0, below=1)
    weight_decay: float = option(
        0.05, "of weights; 1-D parameters, biases and positions have none", least=0
    )
    layer_decay: float = option(
        0.75, "factor of the learning rate from a layer to the one below it", above=0, most=1
    )
    mean_over: Literal["clips", "boxes"] = option(
        "clips",
        "what a step's loss, a sum over boxes, is divided by: clips, so that a clip with more "
        "people weighs more (officially, but for a constant that AdamW takes out), or boxes",
    )


@dataclass(frozen=True)
class DetectSchedule(Schedule):
    """How long the run is, and how the learning rate goes."""

    epochs: int = option(30, "length of the run", unit="epochs", least=1, resumable=True)
    warmup_epochs: int = option(5, "linear warm-up", unit="epochs", least=0)
    validate_every: int = option(
        1, "between validations; the last epoch has one", unit="epochs", least=1, resumable=True
    )
    patience: int | None = option(
        None,
        "end the run when so many validations in a row have not become better (none: never)",
        unit="validations",
        least=1,
        resumable=True,
    )


@dataclass(frozen=True)
class DetectConfig(Config):
    """A detection run."""

    task: ClassVar[str] = "detect"
    command: ClassVar[str] = "detect train"

    model: DetectorModel = DetectorModel()
    data: BoxData = BoxData()
    augment: BoxAugment = BoxAugment()
    optim: DetectOptim = DetectOptim()
    schedule: DetectSchedule = DetectSchedule()
    run: Run = field(default_factory=Run)

    def __post_init__(self) -> None:
        super().__post_init__()
        model, data = self.model, self.data
        if isinstance(model.image_size, tuple):
            raise SettingError(
                "model.image_size", "model.image_size: training cuts squares; give one side"
            )
        if model.image_size > data.short_side:
            raise SettingError(
                "model.image_size",
                f"model.image_size ({model.image_size}) is cut out of frames whose short side is "
                f"data.short_side ({data.short_side}): lower the first or raise the second",
            )
        longest = data.longest_short_side
        if longest is not None and longest < data.short_side:
            raise SettingError(
                "data.longest_short_side",
                f"data.longest_short_side ({longest}) is below data.short_side ({data.short_side})",
            )
        if data.device_decoder != "none" and data.lists and all(x.per_second for x in data.lists):
            raise SettingError(
                "data.device_decoder",
                f"data.device_decoder {data.device_decoder} takes a clip from one file, and those "
                "of per_second lists lie in several: leave it out, or join the files",
            )
        if self.schedule.patience is not None and not data.validation:
            raise SettingError(
                "schedule.patience",
                "schedule.patience waits for a better validation, and data.validation names no "
                "list: give one, or leave patience out",
            )
        self._check_proposals()

    def _check_proposals(self) -> None:
        """Raises SettingError where detected persons are asked for, or given, for nothing."""
        data = self.data
        given = [one.label for one in data.lists if one.proposals is not None]
        if data.add_proposals is not None and data.lists and len(given) < len(data.lists):
            raise SettingError(
                "data.add_proposals",
                "data.add_proposals takes detected persons, and a training list has none: give it "
                "with --data LIST,proposals=FILE",
            )
        if data.add_proposals is None and given:
            raise SettingError(
                "data.lists",
                f"{given[0]}: training reads no proposals unless data.add_proposals says from "
                "which IoU on (0.9); leave them out of --data",
            )
