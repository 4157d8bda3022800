"""The transcription of the official training chain: the official values of tests/golden."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open

from benchmarks.official.augmenting import OPERATIONS, augment, dense_numbers
from tests.support.official_operations import OURS
from videomae_fast.data.augment.policy import OPERATIONS as POLICY
from videomae_fast.data.augment.policy import Augmentation, Operation
from videomae_fast.data.views.labelled_frames import dense_draws, dense_ids

PATH = Path(__file__).parents[2] / "golden" / "downstream_augment.safetensors"
with safe_open(PATH, "pt") as file:
    INFO = json.loads(file.metadata()["info"])
    CHAIN = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118


def plan_of(case) -> Augmentation:
    done = [one for one in case["ops"] if one["applied"]]
    return Augmentation(
        tuple(Operation(OURS[one["op"]], one["args"][0] if one["args"] else None) for one in done),
        tuple(case["crop_top_left_height_width"]),
        case["flipped"],
        (*case["erase_top_left"], *case["erase_height_width"]),
        0,
    )


@pytest.mark.parametrize("k", range(len(INFO["cases"])))
def test_the_chain_is_the_official_one(k):
    plan = plan_of(INFO["cases"][k])
    clip = augment(CHAIN["frames"].numpy(), plan, INFO["crop_size"])
    wanted = CHAIN[f"{k}.output"]
    top, left, height, width = plan.hole
    outside = torch.ones(wanted.shape[-2:], dtype=torch.bool)
    outside[top : top + height, left : left + width] = False
    torch.testing.assert_close(clip[..., outside], wanted[..., outside], rtol=0, atol=1e-6)
    assert (clip - wanted)[..., ~outside].abs().mean() > 0.5  # noise, and another one


def test_it_has_the_policys_operations():
    assert set(OPERATIONS) == set(POLICY)


@pytest.mark.parametrize("duration", [3, 20, 63, 64, 65, 200])
def test_frame_numbers_are_the_librarys(duration):
    draws = dense_draws(duration, 16, 4)
    for draw in {0, draws // 2, draws - 1}:
        word = -(-(draw << 64) // draws)
        assert np.array_equal(
            dense_numbers(duration, 16, 4, word), dense_ids(duration, 16, 4, draw)
        )
