"""Mixup and cutmix against timm's, as the official code calls it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from tests.support.downstream import downstream
from videomae_fast.data.augment.mixing import (
    Mix,
    MixSettings,
    cut_box,
    draw_mix,
    mix_clips,
    mix_targets,
    share_left,
)
from videomae_fast.data.randomness import Randomness

_OFFICIAL = downstream("mixup")
INFO, STATE = _OFFICIAL.info, _OFFICIAL.tensors


def _mix(case: dict[str, Any], batch: int) -> Mix:
    """The golden case's draws."""
    count = {"batch": 1, "pair": batch // 2, "elem": batch}[case["mode"]]
    shares = np.atleast_1d(case["lam_drawn"]).tolist()
    cuts = np.atleast_1d(case["use_cutmix"]).tolist()
    boxes = iter(case["boxes"])
    drawn: list[tuple[float, Any]] = []
    for i in range(count):
        if cuts[i] and shares[i] != 1:
            *box, left = next(boxes)
            drawn.append((left, tuple(box)))
        else:
            drawn.append((shares[i], None))
    if case["mode"] == "pair":
        drawn += reversed(drawn)
    elif case["mode"] == "batch":
        drawn *= batch
    return Mix(tuple(own for own, _ in drawn), tuple(box for _, box in drawn))


@pytest.mark.parametrize("k", range(len(INFO["cases"])))
def test_mixed_clips_and_targets_are_timms(k: int) -> None:
    case = INFO["cases"][k]
    clips = STATE["clips"].permute(0, 2, 3, 4, 1)
    mix = _mix(case, len(clips))
    for own, box in zip(mix.own, mix.boxes, strict=True):
        if box is not None:
            assert share_left(box, clips.shape[2:4]) == pytest.approx(own, abs=1e-12)
    mixed = mix_clips(clips, mix).permute(0, 4, 1, 2, 3)
    torch.testing.assert_close(mixed, STATE[f"{k}.clips"], rtol=1e-6, atol=1e-6)
    target = mix_targets(STATE["labels"], INFO["num_classes"], mix, case["label_smoothing"])
    torch.testing.assert_close(target, STATE[f"{k}.target"], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("k", range(len(INFO["cases"])))
def test_as_tensors_it_is_the_same(k: int) -> None:
    case, clips = INFO["cases"][k], STATE["clips"].permute(0, 2, 3, 4, 1)
    mix = _mix(case, len(clips))
    tensors = mix.tensors()
    assert (tensors.own.shape, tensors.boxes.shape) == ((len(clips),), (len(clips), 4))
    assert torch.equal(mix_clips(clips, tensors), mix_clips(clips, mix))
    targets = [mix_targets(STATE["labels"], 11, one, 0.1) for one in (mix, tensors)]
    assert torch.equal(*targets)


@pytest.mark.parametrize("settings", [MixSettings(cutmix=0), MixSettings(mixup=0)])
def test_what_could_not_be_read_is_not_mixed_into_its_partner(settings: MixSettings) -> None:
    clips = torch.rand(4, 2, 6, 8, 3)
    mix = draw_mix(settings, 4, (6, 8), Randomness(5)).tensors()
    mended = mix.between(torch.tensor([True, True, True, False]))
    mixed, whole = mix_clips(clips, mended), mix_clips(clips, mix)
    assert torch.equal(mixed[0], clips[0])
    assert not torch.equal(whole[0], clips[0])
    assert torch.equal(mixed[1:3], whole[1:3])
    target = mix_targets(torch.tensor([0, 1, 2, 3]), 4, mended, 0.0)
    assert target[0].tolist() == [1, 0, 0, 0]


def test_draws_have_the_wanted_distribution() -> None:
    rng = Randomness(0)
    settings = MixSettings()
    draws = [draw_mix(settings, 2, (16, 20), rng) for _ in range(4000)]
    cut = [mix for mix in draws if mix.boxes[0] is not None]
    assert 0.46 < len(cut) / len(draws) < 0.54
    blended = np.array([mix.own[0] for mix in draws if mix.boxes[0] is None])
    # Beta(0.8, 0.8): mean 1/2, variance 1 / (4 (2 · 0.8 + 1))
    assert abs(blended.mean() - 0.5) < 0.02
    assert abs(blended.var() - 1 / (4 * 2.6)) < 0.01
    for mix in cut:
        top, bottom, left, right = mix.boxes[0] or (0, 0, 0, 0)
        assert 0 <= top <= bottom <= 16
        assert 0 <= left <= right <= 20


def test_one_draw_serves_a_batch_a_pair_or_a_clip() -> None:
    rng = Randomness(1)
    assert len(set(draw_mix(MixSettings(), 8, (9, 9), rng).own)) == 1
    pairs = draw_mix(MixSettings(cutmix=0, mode="pair"), 8, (9, 9), rng).own
    assert pairs == pairs[::-1]
    assert len(set(pairs)) == 4
    assert len(set(draw_mix(MixSettings(cutmix=0, mode="elem"), 8, (9, 9), rng).own)) == 8


def test_box_is_cut_off_at_the_edges() -> None:
    assert cut_box(0.0, (10, 20), (0, 19)) == (0, 5, 9, 20)
    assert cut_box(1.0, (10, 20), (5, 5)) == (5, 5, 5, 5)


def test_without_mixing_clips_and_smoothed_labels_are_as_they_were() -> None:
    clips = torch.rand(3, 2, 4, 4, 3)
    mix = draw_mix(MixSettings(mixup=0, cutmix=0), 3, (4, 4), Randomness(0))
    assert torch.equal(mix_clips(clips, mix), clips)
    target = mix_targets(torch.tensor([0, 1, 2]), 5, mix, 0.1)
    torch.testing.assert_close(target.sum(1), torch.ones(3))
    assert target[1].tolist() == pytest.approx([0.02, 0.92, 0.02, 0.02, 0.02])


def test_what_can_not_be_mixed_is_said() -> None:
    rng = Randomness(0)
    with pytest.raises(ValueError, match="3 clips can't be mixed in pairs"):
        draw_mix(MixSettings(), 3, (4, 4), rng)
    with pytest.raises(ValueError, match="normalise them first"):
        mix_clips(torch.zeros(2, 1, 4, 4, 3, dtype=torch.uint8), Mix.none(2))
    with pytest.raises(ValueError, match="must be batch, pair or elem"):
        MixSettings(mode="all")  # type: ignore[arg-type]
