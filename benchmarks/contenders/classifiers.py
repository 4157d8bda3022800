"""Fine-tuning's step as contenders: mixed clips, soft targets, learning rates by layer.

All get the same normalised fp32 clips, as loaders hand them over, the same weights and the same
draw of mixup or cutmix. The official side mixes and computes as the official engine does; its model
is the transcription or a checkout's, which under ``accelerate`` keeps everything else as it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.common.workload import Mixing, Workload
from benchmarks.contenders.accelerated import accelerate_if_asked
from benchmarks.contenders.base import LEARNING_RATE, WEIGHT_DECAY, Contender, Variant
from benchmarks.contenders.checkout import Checkout
from benchmarks.official.model import OfficialClassifier
from benchmarks.official.step import normalized_images
from videomae_fast import VideoClassifier
from videomae_fast.data.augment.mixing import (
    Mix,
    MixSettings,
    MixTensors,
    draw_mix,
    mix_clips,
    mix_targets,
)
from videomae_fast.data.randomness import Randomness
from videomae_fast.models.config import MAEConfig
from videomae_fast.models.flops import encoder_flops
from videomae_fast.training.layer_decay import layered_groups
from videomae_fast.training.optimizer import make_optimizer

SMOOTHING = 0.1
BETAS = (0.9, 0.999)
LAYER_DECAY = 0.75


@dataclass(frozen=True)
class LabelledWorkload(Workload):
    """Random clips with labels, and a classifier's first weights.

    Attributes:
        classes: of the head.
    """

    classes: int = 400

    @cached_property
    def state(self) -> dict[str, Tensor]:
        """Weights, on the CPU; biases, norms and the head are random too, so that each counts."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            state = VideoClassifier(self.config, self.classes, init_scale=1.0).state_dict()
            return {
                name: value + 0.02 * torch.randn_like(value) if value.ndim == 1 else value
                for name, value in state.items()
            }

    @cached_property
    def labels(self) -> Tensor:
        """int64 [B], on the CPU."""
        return torch.randint(self.classes, (self.batch,), generator=self._generator())

    def mix(self, mixing: Mixing) -> Mix:
        """What is drawn for the batch."""
        alphas = {"mixup": (0.8, 0.0), "cutmix": (0.0, 1.0)}[mixing]
        size = self.config.image_size
        sides = (size, size) if isinstance(size, int) else size
        settings = MixSettings(mixup=alphas[0], cutmix=alphas[1], smoothing=SMOOTHING)
        return draw_mix(settings, self.batch, sides, Randomness(self.seed))

    def describe(self) -> dict[str, Any]:
        return {**super().describe(), "classes": self.classes, "smoothing": SMOOTHING,
                "layer_decay": LAYER_DECAY, "inputs": "random clips, normalised, fp32"}  # fmt: skip


def multiply_adds(config: MAEConfig, classes: int) -> float:
    """Of one clip's forward pass, which no contender does less of."""
    return float(encoder_flops(config) + config.width * classes)


class Classifying(Contender):
    """The parts that all share: labels, the draw, and the optimizer's groups."""

    workload: LabelledWorkload

    def __init__(
        self, name: str, variant: Variant, model: nn.Module, workload: LabelledWorkload,
        mixing: Mixing,
    ) -> None:  # fmt: skip
        self._mixing: Mixing = mixing
        self._mix = workload.mix(mixing)
        self.workload = workload
        super().__init__(name, variant, model, workload, mixing)

    def _optimizer(self) -> torch.optim.Optimizer:
        groups = layered_groups(
            self.model,
            depth=self.workload.config.depth,
            weight_decay=WEIGHT_DECAY,
            layer_decay=LAYER_DECAY,
            exempt={"pos_embed"},
        )
        for group in groups:
            del group["names"]
            group["lr"] = LEARNING_RATE * group["lr_scale"]
        if self.variant.lean:
            optimizer = make_optimizer(groups, betas=BETAS)
            for group, rates in zip(optimizer.param_groups, groups, strict=True):
                group["lr"] = rates["lr"]
            return optimizer
        return torch.optim.AdamW(groups, betas=BETAS)


class OfficialFinetuning(Classifying):
    """As the official engine: clips [B, 3, T, H, W] mixed in one draw, dense targets."""

    def prepare(self) -> Mapping[str, Tensor]:
        return {"images": normalized_images(self.workload.frames), "labels": self.workload.labels}

    def loss(self) -> Tensor:
        images, target = self._mixed(self.input("images"), self.input("labels"))
        with self.mixed():
            logits = self.call(images)
            terms = -target * F.log_softmax(logits, dim=-1)
            loss: Tensor = terms.sum(dim=-1).mean()
        return loss

    def _mixed(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """timm's Mixup, which works in place on what the loader made; here that is kept."""
        own, box, classes = self._mix.own[0], self._mix.boxes[0], self.workload.classes
        off = SMOOTHING / classes
        one_hot = torch.full((len(labels), classes), off, device=labels.device)
        one_hot.scatter_(1, labels[:, None], 1.0 - SMOOTHING + off)
        target = one_hot * own + one_hot.flip(0) * (1.0 - own)
        if box is None:
            return images.flip(0).mul_(1.0 - own).add_(images, alpha=own), target
        top, bottom, left, right = box
        mixed = images.clone()
        mixed[..., top:bottom, left:right] = images.flip(0)[..., top:bottom, left:right]
        return mixed, target


class OurFinetuning(Classifying):
    """As :class:`videomae_fast.tasks.recognition.Recognition`."""

    def prepare(self) -> Mapping[str, Tensor]:
        drawn = self._mix.tensors()
        images = normalized_images(self.workload.frames).permute(0, 2, 3, 4, 1).contiguous()
        labels = self.workload.labels
        return {"frames": images, "labels": labels, "own": drawn.own, "boxes": drawn.boxes}

    def loss(self) -> Tensor:
        drawn = MixTensors(self.input("own"), self.input("boxes"))
        clips = mix_clips(self.input("frames"), drawn)
        target = mix_targets(self.input("labels"), self.workload.classes, drawn, SMOOTHING)
        with self.mixed():
            logits: Tensor = self.call(clips)
        return -(target * logits.float().log_softmax(-1)).sum(-1).mean()


def build(name: str, variant: Variant, workload: LabelledWorkload, mixing: Mixing) -> Classifying:
    """A contender with the workload's weights.

    Raises:
        FileNotFoundError: the variant's folder is no checkout.
        UnavailableError: a shape that a checkout can't have, or a model that ``accelerate`` does
            not take.
        ValueError: another kind than ours, official or checkout.
    """
    config, classes = workload.config, workload.classes
    model: nn.Module
    if variant.kind == "ours":
        model = VideoClassifier(config, classes)
        kind: type[Classifying] = OurFinetuning
    elif variant.kind == "official":
        model = OfficialClassifier(
            config, classes, tables=variant.tables, attention=variant.attention
        )
        kind = OfficialFinetuning
    elif variant.kind == "checkout":
        model = Checkout.at(Path(variant.checkout)).classifier(config, classes)
        kind = OfficialFinetuning
    else:
        raise ValueError(f"no classifier of kind {variant.kind}")
    model.load_state_dict(workload.state)
    accelerate_if_asked(model, variant)
    return kind(name, variant, model, workload, mixing)


def in_precision(variant: Variant, on_gpu: bool) -> Variant:
    """fp32 on a CPU; on a GPU bf16 for ours and fp16 as shipped for the others."""
    if not on_gpu:
        return variant
    return replace(variant, precision="bf16" if variant.kind == "ours" else "fp16")
