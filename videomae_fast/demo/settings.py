"""How much of everything the demo has, and the configurations of its runs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from videomae_fast.masks import MaskSpec
from videomae_fast.recipes import FinetuneConfig, PretrainConfig, Source, changed

RECONSTRUCTED = MaskSpec("frame", 0.75, decoder="none")
"""How videos are hidden that are reconstructed: as in training, and all that is hidden is made.

Whole frames rather than the papers' tube: of four pairs of frames one is seen, and the others can
only be made by whoever sees in it which way things move. Of tubes, and of random cubes, minutes did
not suffice to learn more than what stands still (docs/performance-log.md)."""

STRIDE = 2
SIDE, FPS, SECONDS = 72, 12, 2.0
"""Of rendered videos: pixels, frames per second, length."""

CACHE_GB = 2.0
"""For the rendered videos, which take 0.4 MB each and would be decoded dozens of times. Videos
of the user's may be too long for any limit, and are decoded clip by clip."""

FRAMES = 8
STEPS_PER_EPOCH = 20
EPOCHS = 6
"""Of fine-tuning: so often is it looked at."""


@dataclass(frozen=True)
class Scale:
    """How much of everything.

    Attributes:
        unlabelled: rendered videos that are for pre-training alone.
        labelled: rendered videos of each class whose label is told; pre-training sees them too.
        held_out: rendered videos of each class that no training sees.
        steps: of pre-training, `videos_per_step` videos × `samples` clips each.
        finetuning_steps: of each of the two classifiers, `labelled_per_step` clips each.
        image_size, width, depth, heads: of the model.
        seed: of videos, weights, crops and masks.
    """

    unlabelled: int = 4032
    labelled: int = 8
    held_out: int = 32
    steps: int = 2000
    finetuning_steps: int = 240
    videos_per_step: int = 8
    samples: int = 2
    labelled_per_step: int = 16
    image_size: int = 48
    width: int = 96
    depth: int = 4
    heads: int = 2
    seed: int = 0

    def clip(self) -> dict[str, Any]:
        """Arguments of :func:`videomae_fast.data.read_clip`: a video's middle, as it is shown."""
        return {"frames": FRAMES, "stride": STRIDE, "start": None, "image_size": self.image_size}


FULL = Scale()


def scale_of(steps: int, seed: int) -> Scale:
    """The full scale with so many steps of pre-training, and as large a share of all that follows.

    There are no more videos for pre-training than it draws.
    """
    share = steps / FULL.steps
    return replace(
        FULL,
        steps=steps,
        finetuning_steps=max(EPOCHS, round(FULL.finetuning_steps * share)),
        unlabelled=min(FULL.unlabelled, steps * FULL.videos_per_step),
        seed=seed,
    )


def pretraining_config(scale: Scale, data: Path, *, cache: Path | None) -> PretrainConfig:
    """A model of about 0.8 million parameters, dual-masked, small enough for minutes on a CPU.

    Args:
        scale: how much.
        data: list of the videos.
        cache: where decoded videos are kept; None decodes them for each clip.
    """
    videos = scale.videos_per_step
    epochs = max(1, scale.steps // STEPS_PER_EPOCH)
    return changed(
        PretrainConfig(),
        {
            **_shared(scale, cache),
            "model.decoder_width": 96,
            "model.decoder_depth": 2,
            "model.decoder_heads": 2,
            "masks.encoder": RECONSTRUCTED.encoder,
            "masks.encoder_ratio": RECONSTRUCTED.encoder_ratio,
            "data.lists": (Source(data),),
            "data.samples": scale.samples,
            "data.scales": (0.875, 0.875),
            "data.epoch_size": STEPS_PER_EPOCH * videos,
            # A base rate is for 256 videos per step; this makes the peak 1.5e-3
            "optim.videos_per_step": videos,
            "optim.base_lr": 1.5e-3 * 256 / videos,
            "optim.min_lr": 1e-5 * 256 / videos,
            "schedule.epochs": epochs,
            "schedule.steps": scale.steps if scale.steps % STEPS_PER_EPOCH else None,
            "schedule.warmup_epochs": min(5, epochs // 4),
            "run.checkpoint_every": 500,
        },
    )


def finetuning_config(
    scale: Scale, data: Path, validation: Path, classes: Path, *, cache: Path, init: Path | None
) -> FinetuneConfig:
    """A classifier of the motions, from the weights of a run or from scratch.

    Neither is flipped: left and right are classes. Each has the best rate for it of the four that
    were tried.

    Args:
        scale: how much.
        data, validation: lists with labels.
        classes: file of their names.
        cache: where decoded videos are kept.
        init: folder of the pre-training run; None: from scratch.
    """
    clips = scale.labelled_per_step
    return changed(
        FinetuneConfig(),
        {
            **_shared(scale, cache),
            "model.init": None if init is None else str(init),
            "model.init_scale": 1.0,
            "model.drop_path": 0.0,
            "data.lists": (Source(data, format="labels"),),
            "data.validation": (Source(validation, format="labels"),),
            "data.validation_batch": 32,
            "data.classes": str(classes),
            "data.samples": 1,
            "data.epoch_size": max(1, scale.finetuning_steps // EPOCHS) * clips,
            "augment.operations": 0,
            "augment.area": (0.5, 1.0),
            "augment.flip": 0.0,
            "augment.erase": 0.0,
            "mix.mixup": 0.0,
            "mix.cutmix": 0.0,
            "optim.videos_per_step": clips,
            "optim.base_lr": (3e-3 if init is None else 2e-3) * 256 / clips,
            "optim.min_lr": 1e-5 * 256 / clips,
            "optim.layer_decay": 1.0,
            "schedule.epochs": EPOCHS,
            "schedule.warmup_epochs": 1,
            "run.checkpoint_every": 1000,
        },
    )


def _shared(scale: Scale, cache: Path | None) -> dict[str, Any]:
    return {
        "model.image_size": scale.image_size,
        "model.patch_size": 8,
        "model.frames": FRAMES,
        "model.width": scale.width,
        "model.depth": scale.depth,
        "model.heads": scale.heads,
        "data.stride": STRIDE,
        "data.cache": None if cache is None else str(cache),
        "data.cache_gb": CACHE_GB,
        "data.workers": 0,
        "run.seed": scale.seed,
        "run.device": "cpu",
        "run.log_every": 50,
        "run.keep_checkpoints": 1,
    }
