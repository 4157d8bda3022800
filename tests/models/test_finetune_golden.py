"""Two fine-tuning steps of a tiny classifier against the official code."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.support.downstream import downstream
from videomae_fast import VideoClassifier
from videomae_fast.data.augment.mixing import Mix, mix_clips, mix_targets
from videomae_fast.models.classification_loss import soft_cross_entropy
from videomae_fast.models.pixels import IMAGENET
from videomae_fast.training.averaging import AveragedWeights
from videomae_fast.training.layer_decay import layered_groups

OFFICIAL = downstream("finetune_step")


@pytest.fixture(scope="module")
def golden() -> tuple[dict[str, Any], dict[str, Tensor]]:
    return OFFICIAL.info, OFFICIAL.tensors


@pytest.fixture
def model() -> VideoClassifier:
    made = VideoClassifier(OFFICIAL.config, OFFICIAL.info["num_classes"])
    made.load_state_dict(OFFICIAL.parameters)
    return made


def _normalised(frames: Tensor) -> Tensor:
    return (frames.float() / 255 - torch.tensor(IMAGENET.mean)) / torch.tensor(IMAGENET.std)


def test_normalised_floats_give_what_uint8_gives(
    model: VideoClassifier, golden: tuple[dict[str, Any], dict[str, Tensor]]
) -> None:
    info, data = golden
    model.eval()
    logits = model(data["frames"])
    torch.testing.assert_close(logits, data["clean.logits"], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(model(_normalised(data["frames"])), logits, rtol=1e-5, atol=1e-6)
    labels, classes = data["labels"], info["num_classes"]
    none = Mix.none(len(labels))
    for smoothing, name in ((0.1, "clean.label_smoothing_loss"), (0.0, "clean.cross_entropy")):
        loss = soft_cross_entropy(logits, mix_targets(labels, classes, none, smoothing))
        torch.testing.assert_close(loss, data[name], rtol=1e-5, atol=1e-6)


def test_two_steps_are_the_official_ones(
    model: VideoClassifier, golden: tuple[dict[str, Any], dict[str, Tensor]]
) -> None:
    info, data = golden
    drawn = info["mixup"]
    batch = len(data["labels"])
    mix = Mix((drawn["lam_after"],) * batch, (tuple(drawn["box"]),) * batch)
    clips = mix_clips(_normalised(data["frames"]), mix)
    assert float(clips.norm()) == pytest.approx(float(data["mixed.norm"]), rel=1e-5)
    target = mix_targets(data["labels"], info["num_classes"], mix, 0.1)
    torch.testing.assert_close(target, data["target"])
    groups = layered_groups(
        model,
        depth=info["config"]["depth"],
        weight_decay=info["weight_decay"],
        layer_decay=info["layer_decay"],
        exempt=model.no_weight_decay(),
    )
    optimizer = torch.optim.AdamW(groups, betas=info["betas"], eps=info["eps"], fused=True)
    average = AveragedWeights(model, info["ema_decay"])
    for step, rate in enumerate(info["lr_by_step"]):
        for group in optimizer.param_groups:
            group["lr"] = rate * group["lr_scale"]
        logits = model(clips)
        torch.testing.assert_close(logits, data[f"{step}.logits"], rtol=1e-4, atol=1e-5)
        loss = soft_cross_entropy(logits, target)
        assert float(loss) == pytest.approx(float(data[f"{step}.loss"]), rel=1e-5)
        optimizer.zero_grad()
        loss.backward()
        for name, parameter in model.named_parameters():
            assert parameter.grad is not None
            norm = float(data[f"{step}.grad_norm/{name}"])
            assert float(parameter.grad.norm()) == pytest.approx(norm, rel=1e-4, abs=1e-7), name
        total = torch.nn.utils.clip_grad_norm_(model.parameters(), info["clip"])
        assert float(total) == pytest.approx(float(data[f"{step}.total_norm"]), rel=1e-5)
        optimizer.step()
        average.update(model)
    state = model.state_dict()
    for key, value in data.items():
        kind, _, name = key.partition("/")
        if kind == "after":
            torch.testing.assert_close(state[name], value, rtol=1e-4, atol=1e-6)
        elif kind == "after_norm":
            assert float(state[name].norm()) == pytest.approx(float(value), rel=1e-5)
        elif kind == "ema":
            torch.testing.assert_close(average.state[name], value, rtol=1e-4, atol=1e-6)


def test_float_frames_have_a_gradient(model: VideoClassifier) -> None:
    clips = torch.randn(1, 8, 32, 32, 3, requires_grad=True)
    F.cross_entropy(model(clips), torch.tensor([1])).backward()
    assert clips.grad is not None
    assert clips.grad.abs().sum() > 0
