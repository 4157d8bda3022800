"""Tiny pre-training runs: their settings, as options too; interrupted, read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from videomae_fast.recipes import PretrainConfig, changed
from videomae_fast.recipes.plain import from_flat
from videomae_fast.training.metrics import read_metrics
from videomae_fast.training.step import TrainStep

ROOT = Path(__file__).parents[2]
TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")

TINY: dict[str, Any] = {
    "size": "small",
    "image_size": 32,
    "frames": 4,
    "width": 32,
    "depth": 1,
    "heads": 2,
    "decoder_width": 16,
    "decoder_depth": 1,
    "decoder_heads": 1,
    "encoder_mask_ratio": 0.5,
    "stride": 2,
    "samples_per_video": 2,
    "workers": 0,
    "videos_per_step": 4,
    "epochs": 4,
    "warmup_epochs": 1,
    "base_lr": 0.2,
    "log_every": 2,
    "checkpoint_every": 100,
    "max_failed_share": 0.5,
    "device": "cpu",
}


def altered(config: PretrainConfig, **options: Any) -> PretrainConfig:
    """A configuration with other values, by the names that they have on the command line."""
    return changed(config, from_flat(PretrainConfig, options))


def options(**others: Any) -> list[str]:
    """TINY as command-line options of ``pretrain``, fields changed."""
    words = []
    for name, value in {**TINY, "data_format": "plain", **others}.items():
        words += [f"--{name.replace('_', '-')}", str(value)]
    return words


def quiet(_: str) -> None: ...


def losses(output: Path) -> list[tuple[int, float, float, float]]:
    """What must not depend on interruptions: (step, loss, gradient norm, learning rate)."""
    lines = read_metrics(output / "metrics.jsonl")
    return [(line["step"], line["loss"], line["grad_norm"], line["lr"]) for line in lines]


def interrupt_after(
    monkeypatch: pytest.MonkeyPatch,
    steps: int,
    action: Callable[[], Any],
    kind: type[TrainStep[Any]] = TrainStep,
) -> None:
    """Runs ``action`` while step number ``steps`` (from 0) is made, of a kind of step."""
    update, count = kind.update, [0]

    def counted(self: TrainStep[Any], rate: float) -> torch.Tensor:
        if count[0] == steps:
            action()
        count[0] += 1
        return update(self, rate)

    monkeypatch.setattr(kind, "update", counted)
