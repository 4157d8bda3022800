"""The step of detection: logits of boxes to a sum of cross-entropies, learning rates by layer."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from videomae_fast.data.boxes.batches import BoxBatch
from videomae_fast.models.detection_loss import detection_loss
from videomae_fast.models.detector import ActionDetector
from videomae_fast.models.matmul_parameters import matmul_parameters
from videomae_fast.recipes.detection import DetectConfig
from videomae_fast.tasks.layered import encoder_work, layered_optimizer
from videomae_fast.training.task import MicroLoss, Place, Work


class Acting:
    """Binary cross-entropies, summed over boxes, mean over classes, divided by clips or by boxes.

    Both are those of the whole step, so that micro-batches and processes change nothing; officially
    each process divides by its clips, which is the same but for a constant that AdamW takes out.

    Args:
        config: of the run.
        boxes_per_clip: about how many there are.
    """

    metrics: tuple[str, ...] = ("boxes",)

    def __init__(self, config: DetectConfig, boxes_per_clip: float) -> None:
        self.config = config
        self.draws = config.model.head_dropout > 0
        self._over_boxes = config.optim.mean_over == "boxes"
        self.weight_per_clip = boxes_per_clip if self._over_boxes else 1.0

    def matmul_parameters(self, model: nn.Module) -> list[str]:
        return matmul_parameters(model)

    def why_not_captured(self) -> str | None:
        return "the number of boxes is another in each step"

    def drawn_by_place(self) -> list[str]:
        return ["the head's dropout"] if self.draws else []

    def work(self) -> Work:
        return encoder_work(self.config)

    def optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        assert isinstance(model, ActionDetector)
        return layered_optimizer(model, self.config)

    def inputs(self, batch: BoxBatch, place: Place) -> dict[str, Tensor]:
        """frames: uint8 [B, T, H, W, 3]; ok: bool [B]; boxes: fp32 [N, 4]; clip: int64 [N];
        labels: bool [N, classes]; seeds: int64 [B], of drop path."""
        return {
            "frames": batch.frames,
            "ok": batch.ok,
            "boxes": batch.boxes,
            "clip": batch.clip,
            "labels": batch.labels,
            "seeds": batch.seeds,
        }

    def loss(self, model: nn.Module, inputs: Mapping[str, Tensor], *, scale: float) -> MicroLoss:
        ok, labels = inputs["ok"], inputs["labels"]
        logits: Tensor = model(
            inputs["frames"], inputs["boxes"], inputs["seeds"], clip=inputs["clip"]
        )
        total = detection_loss(logits.float(), labels)
        boxes = torch.full_like(total, len(labels))
        weight = boxes if self._over_boxes else ok.sum().to(total.dtype)
        return MicroLoss(
            total.detach(),
            weight.detach(),
            (~ok).sum(),
            (scale * total).backward,
            (boxes.detach(),),
        )
