"""Places and pixels of evaluation views against the official code's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.support.downstream import downstream
from videomae_fast.data.views.evaluation_crops import (
    centre_corner,
    crop_corners,
    short_side_resized,
)
from videomae_fast.data.views.labelled_frames import dense_ids, dense_test_ids, sparse_test_ids
from videomae_fast.models.pixels import IMAGENET
from videomae_fast.ops.bilinear_resize import bilinear_resize

GOLDEN = Path(__file__).parents[2] / "golden"
CROPS = json.loads((GOLDEN / "downstream_test_crops.json").read_text())


@pytest.mark.parametrize("case", CROPS["sizes"], ids=lambda c: f"{c['height']}x{c['width']}")
def test_crops_are_the_official_ones(case: dict[str, Any]) -> None:
    side = case["short_side"]
    resized = short_side_resized((case["height"], case["width"]), side)
    assert list(resized) == case["resized"]
    corners = crop_corners(resized, side, len(case["crops_top_left_height_width"]))
    assert [[*corner, side, side] for corner in corners] == case["crops_top_left_height_width"]


@pytest.mark.parametrize("k", range(3))
def test_pixels_are_the_official_ones(k: int) -> None:
    """From decoded frames to normalised views, the whole way."""
    official = downstream("test_pixels")
    info = official.info["videos"][k]
    names = ("frames", "test", "validation")
    frames, wanted, validation = (official.tensors[f"{k}.{name}"] for name in names)
    side, length = info["short_side"], info["clip_len"]
    if info["sparse"]:
        ids = sparse_test_ids(len(frames), length, info["segments"])
    else:
        ids = dense_test_ids(len(frames), length, info["rate"], info["segments"])
    small = bilinear_resize(frames, short_side_resized(tuple(frames.shape[1:3]), side))
    corners = crop_corners(tuple(small.shape[1:3]), side, info["crops"])
    views = [
        small[torch.from_numpy(clip), top : top + side, left : left + side]
        for clip in ids
        for top, left in corners
    ]
    torch.testing.assert_close(_normalised(torch.stack(views)), wanted, rtol=0, atol=1e-6)
    if not info["sparse"]:
        top, left = centre_corner(tuple(small.shape[1:3]), side)
        clip = small[torch.from_numpy(dense_ids(len(frames), length, info["rate"]))]
        view = clip[None, :, top : top + side, left : left + side]
        torch.testing.assert_close(_normalised(view)[0], validation, rtol=0, atol=1e-6)


def _normalised(views: torch.Tensor) -> torch.Tensor:
    """[V, T, H, W, 3] to the official [V, 3, T, H, W]."""
    values = (views.float() / 255 - torch.tensor(IMAGENET.mean)) / torch.tensor(IMAGENET.std)
    return values.permute(0, 4, 1, 2, 3)


def test_one_crop_is_the_centre() -> None:
    assert crop_corners((16, 31), 16, 1) == [(0, 8)]
    assert crop_corners((31, 16), 16, 1) == [(8, 0)]


def test_what_can_not_be_cut_is_refused() -> None:
    with pytest.raises(ValueError, match="crops"):
        crop_corners((16, 31), 16, 0)
    with pytest.raises(ValueError, match="short side"):
        crop_corners((17, 31), 16, 2)
    with pytest.raises(ValueError, match="short side of 0"):
        short_side_resized((17, 31), 0)
