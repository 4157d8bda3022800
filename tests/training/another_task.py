"""A task that is none of the package's: a small classifier, trained as downstream systems are.

It mixes clips of a micro-batch (shares drawn on the host from the place), learns from labels and
from a frozen teacher, decays learning rates by layer, keeps a moving average of its weights, tells
an accuracy, and is evaluated after each epoch: all that without a change in the engine.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from videomae_fast.data.dataset import ClipDataset
from videomae_fast.data.loader.pipeline import ClipBatch, clip_loader, steps_per_epoch
from videomae_fast.data.loader.stats import PipelineStats
from videomae_fast.training.checkpoint import Log, Saved
from videomae_fast.training.optimizer import make_optimizer
from videomae_fast.training.parallel.world import World
from videomae_fast.training.task import Fingerprint, MicroLoss, Place, Settings

CLASSES, WIDTH, DECAY, LAYER_DECAY = 4, 8, 0.5, 0.5


def build_model(seed: int) -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(32 * 32 * 3, WIDTH), nn.GELU(), nn.Linear(WIDTH, CLASSES))


class Distilled:
    """Cross-entropy with mixed targets, half of it the teacher's."""

    metrics = ("accuracy",)
    draws = False
    weight_per_clip = 1.0

    def __init__(self) -> None:
        self.teacher = build_model(99).requires_grad_(False)

    def matmul_parameters(self, model: nn.Module) -> list[str]:
        return ["0.weight", "0.bias", "2.weight", "2.bias"]

    def why_not_captured(self) -> str | None:
        return None

    def optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        assert isinstance(model, nn.Sequential)
        layers = (model[0], model[2])
        optimizer = make_optimizer(
            [
                {"params": list(layer.parameters()), "weight_decay": 0.05, "lr_scale": scale}
                for layer, scale in zip(layers, (LAYER_DECAY, 1.0), strict=True)
            ],
            betas=(0.9, 0.999),
        )
        for parameter in model.parameters():
            optimizer.state[parameter]["ema"] = parameter.detach().clone()
        optimizer.register_step_post_hook(_average)
        return optimizer

    def inputs(self, batch: ClipBatch, place: Place) -> dict[str, Tensor]:
        draw = np.random.default_rng((7, place.step, place.micro, place.rank))
        target = F.one_hot(batch.mask_seeds % CLASSES, CLASSES).float()
        share = torch.tensor(draw.beta(0.8, 0.8), dtype=torch.float32)
        return {"frames": batch.frames, "ok": batch.ok, "target": target, "share": share}

    def loss(self, model: nn.Module, inputs: Mapping[str, Tensor], *, scale: float) -> MicroLoss:
        share, ok = inputs["share"], inputs["ok"]
        clips = inputs["frames"][:, 0].flatten(1).float() / 255
        clips = share * clips + (1 - share) * clips.flip(0)
        target = share * inputs["target"] + (1 - share) * inputs["target"].flip(0)
        logits = model(clips)
        with torch.no_grad():
            target = (target + self.teacher(clips).softmax(-1)) / 2
        losses = -(target * logits.log_softmax(-1)).sum(-1)
        weight = ok.float()
        total = (losses * weight).sum()
        hit = (logits.argmax(-1) == target.argmax(-1)) * weight
        return MicroLoss(
            total.detach(), weight.sum(), (~ok).sum(), (scale * total).backward, (hit.sum(),)
        )


@torch.no_grad()
def _average(optimizer: torch.optim.Optimizer, args: Any, options: Any) -> None:
    """Moves the averages on, where the step was one."""
    keep = torch.where(optimizer.found_inf > 0, 1.0, DECAY)  # type: ignore[attr-defined]
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            optimizer.state[parameter]["ema"].mul_(keep).add_((1 - keep) * parameter)


class Classification:
    """The data and the model of such a run."""

    name, activity = "finetune", "fine-tunes"

    def __init__(
        self, dataset: ClipDataset, settings: Settings, world: World, *, total_steps: int
    ) -> None:
        self.dataset, self.settings, self.world = dataset, settings, world
        self.objective = Distilled()
        self.feeding = PipelineStats(0)
        self.steps_per_epoch = steps_per_epoch(dataset, settings.videos_per_step)
        self.config = {"classes": CLASSES}
        self.data = {"entries": [len(source) for source in dataset.sources]}
        self.fingerprint = Fingerprint(self.config, frozenset(), total_steps)
        self.evaluated: list[int] = []

    def learning_rate(self, step: int) -> float:
        return 1e-2 / (1 + step)

    def weight_decay(self, step: int) -> float:
        return 0.05

    def describe(self) -> str:
        return self.dataset.describe(1)

    def batches(self, start_step: int) -> Iterator[ClipBatch]:
        return clip_loader(
            self.dataset,
            videos_per_step=self.settings.videos_per_step,
            micro_batches=self.settings.accumulation,
            start_step=start_step,
            total_steps=self.fingerprint.total_steps,
        )

    def model(self) -> nn.Module:
        return build_model(0)

    def shape(self, model: nn.Module) -> dict[str, Any]:
        return {"model": {"width": WIDTH}, "model_options": {}}

    def begin(self, model: nn.Module, log: Log) -> None:
        return None

    def began(self, saved: Saved) -> None:
        return None

    def fingerprint_of(self, saved: Saved) -> Fingerprint:
        return Fingerprint(saved.state["config"], frozenset(), self.fingerprint.total_steps)

    def epoch_done(self, done: int, model: nn.Module, log: Log) -> None:
        self.evaluated.append(done)
        log(f"evaluated after {done} steps")
