"""The step of fine-tuning: mixed clips to soft targets, learning rates by layer, an average."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from videomae_fast.data.augment.mixing import (
    MixSettings,
    MixTensors,
    draw_mix,
    mix_clips,
    mix_targets,
)
from videomae_fast.data.loader.pipeline import ClipBatch
from videomae_fast.data.randomness import Randomness
from videomae_fast.errors import UsageError
from videomae_fast.models.classifier import VideoClassifier
from videomae_fast.models.matmul_parameters import matmul_parameters
from videomae_fast.recipes.classification import FinetuneConfig
from videomae_fast.tasks.engine import why_not_captured
from videomae_fast.tasks.layered import encoder_work, layered_optimizer
from videomae_fast.tasks.moving_average import keep_average
from videomae_fast.training.task import MicroLoss, Place, Work

_MIX = 4  # a stream of random words apart from those of the data's order


class Recognition:
    """Cross-entropy of soft targets: the mean over clips of ``-sum(w * t * log_softmax)``.

    Clips are mixed within a micro-batch of a process, as officially: so the same videos in more
    micro-batches or processes are mixed with others. A clip whose video, or whose partner's video,
    could not be read is not mixed.

    Args:
        config: of the run.
        videos: int64 [classes], training videos of each class.
    """

    metrics: tuple[str, ...] = ("accuracy",)
    weight_per_clip = 1.0

    def __init__(self, config: FinetuneConfig, videos: NDArray[np.int64]) -> None:
        self.config, self.classes = config, len(videos)
        self.mixing = MixSettings(**asdict(config.mix))
        model = config.model
        self.draws = model.head_dropout > 0
        size = model.image_size
        self.size = (size, size) if isinstance(size, int) else size
        weights = np.ones(self.classes)
        if config.optim.class_weights == "balanced":
            there = videos > 0
            weights[there] = videos.sum() / (there.sum() * videos[there])
        self._weights = torch.tensor(weights, dtype=torch.float32)

    def matmul_parameters(self, model: nn.Module) -> list[str]:
        return matmul_parameters(model)

    def why_not_captured(self) -> str | None:
        return why_not_captured(self.config.optim)

    def drawn_by_place(self) -> list[str]:
        parts = (self.mixing.active, "which clips are mixed"), (self.draws, "the head's dropout")
        return [what for there, what in parts if there]

    def work(self) -> Work:
        return encoder_work(self.config)

    def optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        assert isinstance(model, VideoClassifier)
        made, decay = layered_optimizer(model, self.config), self.config.optim.ema_decay
        if decay > 0:
            keep_average(made, decay)
        self.made = made
        return made

    def inputs(self, batch: ClipBatch, place: Place) -> dict[str, Tensor]:
        """frames: fp32 [B, T, H, W, 3]; ok: bool [B]; labels: int64 [B]; seeds: int64 [B], of drop
        path; own, boxes: how clips are mixed; class_weights: fp32 [classes].

        Raises:
            UsageError: an odd number of clips, which can't be mixed in pairs.
        """
        rng = Randomness(self.config.run.seed, _MIX, place.step, place.micro, place.rank)
        try:
            mix = draw_mix(self.mixing, len(batch), self.size, rng).tensors()
        except ValueError as error:
            raise UsageError(str(error)) from None
        return {
            "frames": batch.frames,
            "ok": batch.ok,
            "labels": batch.labels,
            "seeds": batch.mask_seeds,
            "own": mix.own,
            "boxes": mix.boxes,
            "class_weights": self._weights,
        }

    def loss(self, model: nn.Module, inputs: Mapping[str, Tensor], *, scale: float) -> MicroLoss:
        ok = inputs["ok"]
        clips, target = self.mixed(inputs)
        logits: Tensor = model(clips, inputs["seeds"]).float()
        weight = ok.float()
        total = (self.label_terms(logits, target, inputs) * weight).sum()
        with torch.no_grad():
            hits = ((logits.argmax(-1) == target.argmax(-1)) * weight).sum()
        return MicroLoss(
            total.detach(), weight.sum(), (~ok).sum(), (scale * total).backward, (hits,)
        )

    def mixed(self, inputs: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Mixed clips fp32 [B, T, H, W, 3], and their soft targets fp32 [B, classes]."""
        clips = inputs["frames"]
        mix = MixTensors(inputs["own"], inputs["boxes"]).between(inputs["ok"])
        if self.mixing.active:
            clips = mix_clips(clips, mix)
        labels = inputs["labels"].clamp(min=0)  # places that stay empty have none, and no weight
        return clips, mix_targets(labels, self.classes, mix, self.mixing.smoothing)

    def label_terms(self, logits: Tensor, target: Tensor, inputs: Mapping[str, Tensor]) -> Tensor:
        """The weighted cross-entropy of each clip, fp32 [B]."""
        return -(target * inputs["class_weights"] * logits.log_softmax(-1)).sum(-1)
