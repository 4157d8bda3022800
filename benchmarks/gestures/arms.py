"""What is compared: ways from clips to classes, with one model, and their settings.

One set of settings serves all folds and seeds; whoever looks for better ones looks at fold 0 alone.
A probe's rate and decay are chosen by a fold that is held out of its training clips, never by the
clips that are scored.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from benchmarks.gestures.folds import Clip, Lists, write_lists
from videomae_fast.data.dataset import ClipDataset
from videomae_fast.data.loader.pipeline import every_entry, once_loader
from videomae_fast.evaluation.multi_view import score_videos
from videomae_fast.evaluation.probes import ProbeResult, attentive_probe, linear_probe
from videomae_fast.interop import read_encoder, read_weights
from videomae_fast.models.frozen import FrozenFeatures, Pooling
from videomae_fast.recipes import FinetuneConfig, PretrainConfig, Source, changed
from videomae_fast.tasks.classification import finetune
from videomae_fast.tasks.labelled import validation_clips
from videomae_fast.tasks.pretraining import pretrain

Arm = Literal["from scratch", "linear probe", "attentive probe", "pre-trained"]
ARMS: tuple[Arm, ...] = ("from scratch", "linear probe", "pre-trained")
Log = Callable[[str], None]


@dataclass(frozen=True)
class StudySettings:
    """All that decides the results but for fold and seed.

    Attributes:
        model: fields of the model, which all arms share.
        pretraining, finetuning: fields of the two runs.
        probe_rates, probe_decays, probe_epochs: of the linear probe.
        attentive_rates, attentive_decays, attentive_epochs: of the attentive one, of one block.
    """

    model: dict[str, Any]
    pretraining: dict[str, Any]
    finetuning: dict[str, Any]
    probe_rates: tuple[float, ...] = (0.03, 0.01, 0.003, 0.001)
    probe_decays: tuple[float, ...] = (0.01, 0.1)
    probe_epochs: int = 60
    attentive_rates: tuple[float, ...] = (0.003, 0.001)
    attentive_decays: tuple[float, ...] = (0.1,)
    attentive_epochs: int = 20

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
        work: folder of lists and runs.
        decoded: folder of decoded clips; None: within `work`.
    """

    clips: tuple[Clip, ...]
    data: Path
    number: int
    seed: int
    work: Path
    decoded: Path | None = None

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


def run_arm(
    arm: Arm, fold: Fold, settings: StudySettings, log: Log, *, pretraining: Fold | None = None
) -> dict[str, Any]:
    """One cell: the share of the fold's clips that are put into the right class.

    Pre-training is a run of its own that all arms which need it go on from; whoever comes first
    does it, or goes on with it where it was stopped.

    Args:
        arm: what is made of the clips.
        fold: that is scored.
        settings: of the runs.
        log: takes their lines.
        pretraining: the same fold with clips and folder of pre-training, where these differ.

    Returns:
        "accuracy", "videos", "right" (of each video, in the list's order), "seconds" (of this arm
        alone) and "pretraining_seconds" (0 where it was there).
    """
    begin = time.perf_counter()
    encoder = None if arm == "from scratch" else pretrained(pretraining or fold, settings, log)
    between = time.perf_counter()
    if arm in ("linear probe", "attentive probe"):
        assert encoder is not None
        right, more = probed(arm, encoder, fold, settings)
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
        "data.cache": str(fold.decoded or fold.work / "decoded"), "data.cache_gb": 2.0,
        "data.workers": 0,
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


def features_of(
    encoder: Path, listed: Path, fold: Fold, settings: StudySettings, pooling: Pooling
) -> Labelled:
    """Tokens of a frozen encoder, or their mean, for each video of a list."""
    frozen = FrozenFeatures(read_encoder(encoder).eval(), pooling)
    clips = _clips(listed, fold, settings)
    vectors, labels = [], []
    for batch in once_loader(clips, every_entry(clips), videos=16, workers=0, device="cpu"):
        if batch.failures:
            raise RuntimeError(f"a clip can't be read: {batch.failures[0]}")
        found = frozen(batch.frames)
        vectors.append(found.flatten(1, -2) if pooling == "tokens" else found)
        labels.append(batch.labels)
    return Labelled(torch.cat(vectors), torch.cat(labels))


@dataclass(frozen=True)
class Labelled:
    """features: fp32 [N, width] or [N, tokens, width]; labels: int64 [N]."""

    features: Tensor
    labels: Tensor

    def where(self, chosen: Tensor) -> Labelled:
        """Those of a mask, bool [N]."""
        return Labelled(self.features[chosen], self.labels[chosen])


def probed(
    arm: Arm, encoder: Path, fold: Fold, settings: StudySettings
) -> tuple[list[bool], dict[str, Any]]:
    """A probe of the encoder, its rate and decay chosen by one of the training folds."""
    pooling: Pooling = "tokens" if arm == "attentive probe" else "clip"
    training = features_of(encoder, fold.lists.training, fold, settings, pooling)
    scored = features_of(encoder, fold.lists.validation, fold, settings, pooling)
    judge = fold.others()[0]
    folds = [c.fold for c in fold.clips if c.label >= 0 and c.fold != fold.number]
    held_out = torch.tensor([one == judge for one in folds])
    inner, judging = training.where(~held_out), training.where(held_out)
    probe = partial(_probe, arm, fold, settings)
    rates, decays = settings.probe_rates, settings.probe_decays
    if arm == "attentive probe":
        rates, decays = settings.attentive_rates, settings.attentive_decays
    chosen = probe(inner, judging, rates, decays).best
    last = probe(training, scored, (chosen.learning_rate,), (chosen.weight_decay,))
    with torch.no_grad():
        guesses = last.head(scored.features).argmax(1)
    return (guesses == scored.labels).tolist(), {
        "learning_rate": chosen.learning_rate,
        "weight_decay": chosen.weight_decay,
        "judging_fold": judge,
    }


def _probe(
    arm: Arm,
    fold: Fold,
    settings: StudySettings,
    training: Labelled,
    others: Labelled,
    rates: Sequence[float],
    decays: Sequence[float],
) -> ProbeResult:
    classes = 1 + max(clip.label for clip in fold.clips)
    sets = (training.features, training.labels, others.features, others.labels)
    shared: dict[str, Any] = {
        "classes": classes, "rates": rates, "decays": decays, "seed": fold.seed,
    }  # fmt: skip
    if arm == "attentive probe":
        heads = settings.model["model.heads"]
        shared |= {"epochs": settings.attentive_epochs, "batch": 32}
        return attentive_probe(*sets, heads=heads, depth=1, **shared)
    return linear_probe(*sets, epochs=settings.probe_epochs, batch=64, **shared)


def shorter(settings: StudySettings, pretraining: int | None, finetuning: int | None) -> Any:
    """The settings with other numbers of epochs, where they are given."""
    changes: dict[str, Any] = {}
    for name, epochs in (("pretraining", pretraining), ("finetuning", finetuning)):
        if epochs is not None:
            warm = min(getattr(settings, name)["schedule.warmup_epochs"], epochs // 4)
            lengths = {"schedule.epochs": epochs, "schedule.warmup_epochs": warm}
            changes[name] = {**getattr(settings, name), **lengths}
    return replace(settings, **changes)
