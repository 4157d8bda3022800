"""What is compared: three ways from clips to classes, with one model, and their settings.

One set of settings serves all folds and seeds; whoever looks for better ones looks at fold 0 alone.
A probe's rate and decay are chosen by a fold that is held out of its training clips, never by the
clips that are scored.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from benchmarks.gestures.folds import Clip, Lists, write_lists
from videomae_fast.data.dataset import ClipDataset
from videomae_fast.data.loader.pipeline import every_entry, once_loader
from videomae_fast.evaluation.multi_view import score_videos
from videomae_fast.evaluation.probes import linear_probe
from videomae_fast.interop import read_encoder, read_weights
from videomae_fast.models.frozen import FrozenFeatures
from videomae_fast.recipes import FinetuneConfig, PretrainConfig, Source, changed
from videomae_fast.tasks.classification import finetune
from videomae_fast.tasks.labelled import validation_clips
from videomae_fast.tasks.pretraining import pretrain

Arm = Literal["from scratch", "linear probe", "pre-trained"]
ARMS: tuple[Arm, ...] = ("from scratch", "linear probe", "pre-trained")
Log = Callable[[str], None]


@dataclass(frozen=True)
class StudySettings:
    """All that decides the results but for fold and seed.

    Attributes:
        model: fields of the model, which all arms share.
        pretraining, finetuning: fields of the two runs.
        probe_rates, probe_decays, probe_epochs: of the linear probe.
    """

    model: dict[str, Any]
    pretraining: dict[str, Any]
    finetuning: dict[str, Any]
    probe_rates: tuple[float, ...] = (0.03, 0.01, 0.003, 0.001)
    probe_decays: tuple[float, ...] = (0.01, 0.1)
    probe_epochs: int = 60

    def to_dict(self) -> dict[str, Any]:
        """As JSON takes it."""
        return asdict(self)


MODEL: dict[str, Any] = {
    "model.size": "small", "model.image_size": 64, "model.patch_size": 8, "model.frames": 8,
    "model.width": 128, "model.depth": 4, "model.heads": 2,
}  # fmt: skip
FULL = StudySettings(
    model=MODEL,
    pretraining={
        "model.decoder_width": 128, "model.decoder_depth": 2, "model.decoder_heads": 2,
        "masks.encoder_ratio": 0.75, "data.stride": 4, "data.samples": 4,
        "optim.videos_per_step": 4, "optim.base_lr": 0.032, "optim.min_lr": 1e-4,
        "schedule.epochs": 60, "schedule.warmup_epochs": 5,
    },
    # Directions are classes, so clips are not flipped; a gesture lasts as long as its clip
    finetuning={
        "model.drop_path": 0.1, "model.init_scale": 1.0, "data.sampling": "sparse",
        "data.samples": 1, "augment.operations": 2, "augment.area": (0.5, 1.0),
        "augment.flip": 0.0, "augment.erase": 0.0, "mix.mixup": 0.0, "mix.cutmix": 0.0,
        "optim.videos_per_step": 8, "optim.base_lr": 0.024, "optim.min_lr": 1e-5,
        "optim.layer_decay": 0.9, "schedule.epochs": 60, "schedule.warmup_epochs": 5,
    },
)  # fmt: skip
# Small enough to test the command with
TINY = StudySettings(
    model={**MODEL, "model.image_size": 32, "model.width": 32, "model.depth": 1},
    pretraining={
        **FULL.pretraining, "model.decoder_width": 32, "model.decoder_depth": 1,
        "schedule.epochs": 1, "schedule.warmup_epochs": 0, "optim.videos_per_step": 4,
    },
    finetuning={
        **FULL.finetuning, "schedule.epochs": 1, "schedule.warmup_epochs": 0,
        "optim.videos_per_step": 4,
    },
    probe_epochs=2,
)  # fmt: skip


@dataclass(frozen=True)
class Fold:
    """One fold of the set with its runs' folder.

    Attributes:
        clips: of the whole set.
        data: the set's folder.
        number: of the fold that is scored.
        seed: of weights, order and augmentation.
        work: folder of lists, decoded clips and runs.
    """

    clips: tuple[Clip, ...]
    data: Path
    number: int
    seed: int
    work: Path

    @property
    def folder(self) -> Path:
        """Of this fold's runs with this seed."""
        return self.work / f"fold-{self.number}-seed-{self.seed}"

    @property
    def lists(self) -> Lists:
        """Written anew: they are a page."""
        return write_lists(self.clips, self.number, self.folder)

    def others(self) -> list[int]:
        """Folds that are not scored."""
        return sorted({c.fold for c in self.clips if c.label >= 0 and c.fold != self.number})


def run_arm(arm: Arm, fold: Fold, settings: StudySettings, log: Log) -> dict[str, Any]:
    """One cell: the share of the fold's clips that are put into the right class.

    Pre-training is a run of its own that both arms which need it go on from; whoever comes first
    does it, or goes on with it where it was stopped.

    Returns:
        "accuracy", "videos", "right" (of each video, in the list's order), "seconds" (of this arm
        alone) and "pretraining_seconds" (0 where it was there).
    """
    begin = time.perf_counter()
    encoder = None if arm == "from scratch" else pretrained(fold, settings, log)
    between = time.perf_counter()
    if arm == "linear probe":
        assert encoder is not None
        right, more = probed(encoder, fold, settings)
    else:
        right, more = finetuned(arm, encoder, fold, settings, log), {}
    return {
        "accuracy": sum(right) / len(right),
        "videos": len(right),
        "right": right,
        "pretraining_seconds": between - begin,
        "seconds": time.perf_counter() - between,
        **more,
    }


def pretrained(fold: Fold, settings: StudySettings, log: Log) -> Path:
    """The folder of the fold's pre-training run, done if it is not."""
    output = fold.folder / "pretraining"
    source = Source(fold.lists.pretraining, root=fold.data)
    values = {**settings.model, **settings.pretraining, **_shared(fold)}
    pretrain(changed(PretrainConfig(), {**values, "data.lists": (source,)}), output=output, log=log)
    return output


def labelled_config(fold: Fold, settings: StudySettings) -> FinetuneConfig:
    """Of the fold's fine-tuning runs; what is scored at the end is no part of them."""
    lists = fold.lists
    training = Source(lists.training, root=fold.data, format="labels")
    values = {**settings.model, **settings.finetuning, **_shared(fold)}
    return changed(FinetuneConfig(), {**values, "data.lists": (training,)})


def _shared(fold: Fold) -> dict[str, Any]:
    return {
        "data.cache": str(fold.work / "decoded"), "data.cache_gb": 2.0, "data.workers": 0,
        "run.seed": fold.seed, "run.device": "cpu", "run.log_every": 50,
        "run.checkpoint_every": 200, "run.keep_checkpoints": 1,
    }  # fmt: skip


def finetuned(
    arm: Arm, encoder: Path | None, fold: Fold, settings: StudySettings, log: Log
) -> list[bool]:
    """Trains a classifier; which of the fold's clips its last weights put into their class."""
    config = labelled_config(fold, settings)
    if encoder is not None:
        config = changed(config, {"model.init": str(encoder)})
    output = fold.folder / arm.replace(" ", "-")
    finetune(config, output=output, log=log)
    model = read_weights(output).model()
    clips = _clips(fold.lists.validation, fold, settings)
    scored = list(score_videos(model, clips, every_entry(clips), clips=16))
    for one in scored:
        if one.scores is None:
            raise RuntimeError(f"a clip of the fold can't be read: {one.failure}")
    return [int(one.scores.argmax()) == one.label for one in scored if one.scores is not None]


def _clips(listed: Path, fold: Fold, settings: StudySettings) -> ClipDataset:
    """One clip from the middle of each video of a list, as validation takes it."""
    source = Source(listed, root=fold.data, format="labels")
    config = changed(labelled_config(fold, settings), {"data.validation": (source,)})
    found = validation_clips(config)
    assert found is not None
    return found


def features_of(encoder: Path, listed: Path, fold: Fold, settings: StudySettings) -> Labelled:
    """Mean tokens of a frozen encoder for each video of a list."""
    frozen = FrozenFeatures(read_encoder(encoder).eval())
    clips = _clips(listed, fold, settings)
    vectors, labels = [], []
    for batch in once_loader(clips, every_entry(clips), videos=16, workers=0, device="cpu"):
        if batch.failures:
            raise RuntimeError(f"a clip can't be read: {batch.failures[0]}")
        vectors.append(frozen(batch.frames))
        labels.append(batch.labels)
    return Labelled(torch.cat(vectors), torch.cat(labels))


@dataclass(frozen=True)
class Labelled:
    """features: fp32 [N, width]; labels: int64 [N]."""

    features: Tensor
    labels: Tensor

    def where(self, chosen: Tensor) -> Labelled:
        """Those of a mask, bool [N]."""
        return Labelled(self.features[chosen], self.labels[chosen])


def probed(encoder: Path, fold: Fold, settings: StudySettings) -> tuple[list[bool], dict[str, Any]]:
    """A linear probe of the encoder, its rate and decay chosen by one of the training folds."""
    training = features_of(encoder, fold.lists.training, fold, settings)
    scored = features_of(encoder, fold.lists.validation, fold, settings)
    classes = 1 + max(clip.label for clip in fold.clips)
    judge = fold.others()[0]
    folds = [c.fold for c in fold.clips if c.label >= 0 and c.fold != fold.number]
    held_out = torch.tensor([one == judge for one in folds])
    inner, judging = training.where(~held_out), training.where(held_out)
    shared = {"classes": classes, "epochs": settings.probe_epochs, "batch": 64, "seed": fold.seed}
    chosen = linear_probe(
        inner.features, inner.labels, judging.features, judging.labels,
        rates=settings.probe_rates, decays=settings.probe_decays, **shared,
    ).best  # fmt: skip
    last = linear_probe(
        training.features, training.labels, scored.features, scored.labels,
        rates=[chosen.learning_rate], decays=[chosen.weight_decay], **shared,
    )  # fmt: skip
    with torch.no_grad():
        guesses = last.head(scored.features).argmax(1)
    return (guesses == scored.labels).tolist(), {
        "learning_rate": chosen.learning_rate,
        "weight_decay": chosen.weight_decay,
        "judging_fold": judge,
    }


def shorter(settings: StudySettings, pretraining: int | None, finetuning: int | None) -> Any:
    """The settings with other numbers of epochs, where they are given."""
    changes: dict[str, Any] = {}
    for name, epochs in (("pretraining", pretraining), ("finetuning", finetuning)):
        if epochs is not None:
            warm = min(getattr(settings, name)["schedule.warmup_epochs"], epochs // 4)
            lengths = {"schedule.epochs": epochs, "schedule.warmup_epochs": warm}
            changes[name] = {**getattr(settings, name), **lengths}
    return replace(settings, **changes)
