"""What objectives have in common that train an encoder layer by layer: optimizer and work."""

from __future__ import annotations

import torch

from videomae_fast.models.classifier import VideoClassifier
from videomae_fast.models.config import mae_config
from videomae_fast.models.detector import ActionDetector
from videomae_fast.models.flops import encoder_flops
from videomae_fast.recipes.classification import FinetuneConfig
from videomae_fast.recipes.detection import DetectConfig
from videomae_fast.training.layer_decay import layered_groups
from videomae_fast.training.optimizer import make_optimizer
from videomae_fast.training.task import Work


def layered_optimizer(
    model: VideoClassifier | ActionDetector, config: FinetuneConfig | DetectConfig
) -> torch.optim.Optimizer:
    """AdamW with a rate for each layer of the encoder."""
    optim = config.optim
    groups = layered_groups(
        model,
        depth=model.config.depth,
        weight_decay=optim.weight_decay,
        layer_decay=optim.layer_decay,
        exempt=model.no_weight_decay(),
    )
    for group in groups:
        del group["names"]
    return make_optimizer(groups, betas=optim.betas, impl=optim.optimizer)


def encoder_work(config: FinetuneConfig | DetectConfig) -> Work:
    """Of the encoder, which is nearly all."""
    same = float(encoder_flops(mae_config(config.model)))
    return Work(same, same, config.run.activation_checkpointing)
