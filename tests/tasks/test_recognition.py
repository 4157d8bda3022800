"""The step of fine-tuning against the official code's."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.support.downstream import downstream
from videomae_fast import MAEConfig, VideoClassifier
from videomae_fast.data.augment.mixing import Mix
from videomae_fast.models.flops import encoder_flops
from videomae_fast.models.pixels import IMAGENET
from videomae_fast.recipes import FinetuneConfig, changed
from videomae_fast.tasks.engine import engine_settings
from videomae_fast.tasks.recognition import Recognition
from videomae_fast.training.checkpoint import Saved
from videomae_fast.training.optimizer import optimizer_state
from videomae_fast.training.parallel.world import World
from videomae_fast.training.resume import tell_drawn_by_place
from videomae_fast.training.step import TrainStep
from videomae_fast.training.task import Counted, Place


class Drawn(Recognition):
    """With draws that were made elsewhere."""

    mix: Mix

    def inputs(self, batch: Any, place: Place) -> dict[str, Tensor]:
        made = self.mix.tensors()
        return {**super().inputs(batch, place), "own": made.own, "boxes": made.boxes}


def _batch(frames: Tensor, labels: Tensor) -> Any:
    class Clips(SimpleNamespace):
        def __len__(self) -> int:
            return len(self.frames)

    ok, seeds = torch.ones(len(labels), dtype=torch.bool), torch.arange(len(labels))
    return Clips(frames=frames, labels=labels, ok=ok, mask_seeds=seeds)


def test_two_steps_are_the_official_ones() -> None:
    official = downstream("finetune_step")
    info, data = official.info, official.tensors
    drawn, count = info["mixup"], len(data["labels"])
    config = changed(
        FinetuneConfig(),
        {
            "model.image_size": official.config.image_size,
            "model.drop_path": 0.0,
            "data.samples": 1,
            "optim.videos_per_step": count,
            "optim.betas": info["betas"],
            "optim.weight_decay": info["weight_decay"],
            "optim.layer_decay": info["layer_decay"],
            "optim.clip_grad": info["clip"],
            "optim.ema_decay": info["ema_decay"],
            "run.device": "cpu",
        },
    )
    model = VideoClassifier(official.config, info["num_classes"])
    model.load_state_dict(
        {key.removeprefix("param/"): v for key, v in data.items() if key.startswith("param/")}
    )
    objective = Drawn(config, np.ones(info["num_classes"], dtype=np.int64))
    objective.mix = Mix((drawn["lam_after"],) * count, (tuple(drawn["box"]),) * count)
    settings = engine_settings(config.data, config.optim, config.run)
    step = TrainStep(objective, model, settings, World(0, 1, torch.device("cpu")))
    frames = (data["frames"].float() / 255 - torch.tensor(IMAGENET.mean)) / torch.tensor(
        IMAGENET.std
    )
    for number, rate in enumerate(info["lr_by_step"]):
        step.forward_backward(_batch(frames, data["labels"]), step=number, micro=0)
        row = dict(zip(step.columns, step.update(rate).tolist(), strict=True))
        loss = row["loss_sum"] / row["loss_weight"]
        assert loss == pytest.approx(float(data[f"{number}.loss"]), rel=1e-5)
        assert row["grad_norm"] == pytest.approx(float(data[f"{number}.total_norm"]), rel=1e-5)
    state, moments = model.state_dict(), optimizer_state(model, step.optimizer)
    compared = {"after": 0, "ema": 0}
    for key, value in data.items():
        kind, _, name = key.partition("/")
        if kind in compared:
            own = state[name] if kind == "after" else moments[f"ema.{name}"]
            torch.testing.assert_close(own, value, rtol=1e-4, atol=1e-6)
            compared[kind] += 1
    assert compared == {"after": 35, "ema": 3}


def test_balanced_classes_weigh_alike() -> None:
    config = changed(FinetuneConfig(), {"optim.class_weights": "balanced", "mix.smoothing": 0.0})
    objective = Recognition(config, np.array([6, 2, 0]))
    logits = torch.randn(8, 3, generator=torch.Generator().manual_seed(0), requires_grad=True)
    labels = torch.tensor([0] * 6 + [1] * 2)
    inputs = {
        "frames": torch.zeros(8, 1, 2, 2, 3),
        "ok": torch.ones(8, dtype=torch.bool),
        "labels": labels,
        "seeds": labels,
        "class_weights": objective._weights,
        "own": torch.ones(8, dtype=torch.float64),
        "boxes": torch.zeros(8, 4, dtype=torch.int64),
    }
    loss = objective.loss(_Says(logits), inputs, scale=1.0)
    each = torch.nn.functional.cross_entropy(logits, labels, reduction="none")
    expected = 8 * (each[:6].mean() + each[6:].mean()) / 2
    assert float(loss.total) == pytest.approx(float(expected.detach()), rel=1e-6)


class _Says(torch.nn.Module):
    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self.logits = logits

    def forward(self, frames: Tensor, clip_seeds: Tensor) -> Tensor:
        return self.logits


@pytest.mark.parametrize(
    ("options", "before", "said"),
    [
        ({}, [4, 1], "which clips are mixed goes by micro-batches, which were 4 processes x 1 a "
         "step and are 2 x 1: drawn otherwise from step 7 on; clips, crops and drop path are not"),
        ({"model.head_dropout": 0.5}, [2, 2], "which clips are mixed and the head's dropout goes"),
        ({}, [2, 1], None),
        ({}, None, None),
        ({"mix.mixup": 0.0, "mix.cutmix": 0.0, "model.drop_path": 0.2}, [4, 1], None),
    ],
)  # fmt: skip
def test_what_other_processes_draw_otherwise_is_told(
    options: dict[str, Any], before: list[int] | None, said: str | None
) -> None:
    objective = Recognition(changed(FinetuneConfig(), options), np.ones(3, dtype=np.int64))
    state = {} if before is None else {"micro_batches": before}
    told: list[str] = []
    tell_drawn_by_place(Saved(Path(), 7, state), objective, 2, 1, told.append)
    assert len(told) == (said is not None)
    assert said is None or told[0].startswith(said)


def test_the_work_of_a_step_is_the_encoders() -> None:
    objective = Recognition(FinetuneConfig(), np.ones(3, dtype=np.int64))
    assert isinstance(objective, Counted)
    work = objective.work()
    assert work.official == work.computed == encoder_flops(MAEConfig.from_size("base"))
    assert not work.again
