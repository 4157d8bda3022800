"""Views with boxes against the official code's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from videomae_fast.data.boxes.detection_views import (
    DetectionView,
    DetectionViews,
    drawn_view,
    viewed_boxes,
    viewed_frames,
    whole_view,
)
from videomae_fast.data.boxes.geometry import extended, from_corner_and_size, moved
from videomae_fast.data.boxes.key_frames import key_frame_ids
from videomae_fast.data.randomness import Randomness

GOLDEN = Path(__file__).parents[2] / "golden"
MEAN, DEVIATION = torch.tensor([122.7717, 115.9465, 102.9801]), 57.375


def _loaded(name: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    with safe_open(GOLDEN / f"downstream_{name}.safetensors", "pt") as file:
        info = json.loads(file.metadata()["info"])
        return info, {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118


@pytest.mark.parametrize("k", range(3))
def test_frames_and_boxes_are_the_official_ones(k: int) -> None:
    info, data = _loaded("ava_transforms")
    case, frames = info["cases"][k], data[f"{k}.frames"]
    size = (frames.shape[1], frames.shape[2])
    boxes, kept = from_corner_and_size(data[f"{k}.boxes_xywh"], size)
    assert kept.all()
    torch.testing.assert_close(boxes, data[f"{k}.boxes_loaded"], rtol=1e-6, atol=1e-5)

    view = whole_view(DetectionViews(case["short_side"], 32, boxes="official"), size)
    if case["train"]:
        (across, down, flip), side = case["uniforms"], case["crop"]
        height, width = view.size
        crop = (int(down * (height - side)), int(across * (width - side)), side)
        view = DetectionView(view.size, crop, tuple(case["hsv_shifts"]), flip < 0.5, "official")
    ids = key_frame_ids(len(frames) // 2, case["num_frames"], case["rate"], len(frames))
    clip = viewed_frames(frames[torch.from_numpy(ids)], view)
    wanted = (data[f"{k}.clip"].permute(1, 2, 3, 0) * DEVIATION + MEAN).round().to(torch.uint8)
    assert torch.equal(clip, wanted)
    found, kept = viewed_boxes(boxes, size, view)
    assert kept.all()
    torch.testing.assert_close(found, data[f"{k}.boxes"], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "case", json.loads((GOLDEN / "downstream_ava_eval.json").read_text())["temporal_crop"]
)
def test_frame_numbers_are_the_official_ones(case: dict[str, Any]) -> None:
    ids = key_frame_ids(case["key_frame"], case["num_frames"], case["rate"], case["frames_decoded"])
    assert ids.tolist() == case["ids"]


def test_windows_end_with_the_video() -> None:
    assert key_frame_ids(2, 4, 4, 6).tolist() == [0, 0, 3, 5]
    with pytest.raises(ValueError, match="key frame 6 lies outside"):
        key_frame_ids(6, 4, 4, 6)
    with pytest.raises(ValueError, match="stride"):
        key_frame_ids(2, 4, 0, 6)


@pytest.mark.parametrize("k", range(2))
def test_boxes_of_training_and_testing_are_the_official_ones(k: int) -> None:
    _, data = _loaded("ava_model")
    boxes = data[f"boxes{k}"]
    size = (data[f"clip{k}"].shape[1], data[f"clip{k}"].shape[2])
    torch.testing.assert_close(extended(boxes, size), data[f"test.extended{k}"])
    found = moved(boxes, data[f"train.uniform{k}"], size)
    torch.testing.assert_close(found, data[f"train.boxes{k}"], rtol=1e-5, atol=1e-5)


def test_moved_boxes_keep_a_pixel_and_stay_within() -> None:
    boxes = torch.tensor([[3.0, 3.0, 3.0, 3.0], [0.0, 0.0, 9.0, 9.0]])
    draws = torch.tensor([[1.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 1.0]])
    found = moved(boxes, draws, (10, 10))
    assert (found[0, 2:] - found[0, :2] >= 1 - 1e-6).all()
    assert found[1].tolist() == [0.0, 0.0, 9.0, 9.0]
    with pytest.raises(ValueError, match="draws"):
        moved(boxes, draws[:1], (10, 10))


def test_empty_boxes_are_left_out() -> None:
    found, kept = from_corner_and_size(
        torch.tensor([[2.0, 2.0, 4.0, 4.0], [2.0, 2.0, 1.0, 4.0], [50.0, 2.0, 4.0, 4.0]]), (20, 30)
    )
    assert kept.tolist() == [True, False, False]
    assert found.tolist() == [[2.0, 2.0, 5.0, 5.0]]


BOXES = torch.tensor([[1.0, 1.0, 8.0, 8.0], [2.0, 14.0, 30.0, 28.0], [31.0, 12.0, 38.0, 20.0]])


def test_boxes_outside_of_the_crop_go_unless_it_is_official() -> None:
    view = DetectionView((40, 40), (10, 10, 20), flip=True)
    found, kept = viewed_boxes(BOXES, (40, 40), view)
    assert kept.tolist() == [False, True, False]
    assert found.tolist() == [[0.0, 4.0, 19.0, 18.0]]
    official, all_kept = viewed_boxes(
        BOXES, (40, 40), DetectionView((40, 40), (10, 10, 20), flip=True, boxes="official")
    )
    assert all_kept.all()
    assert official[0].tolist() == [19.0, 0.0, 19.0, 0.0]


def test_a_marked_square_stays_in_its_box() -> None:
    """Frames and boxes move alike: the one bright square is where the box says."""
    frames = torch.zeros(1, 60, 80, 3, dtype=torch.uint8)
    frames[:, 20:40, 30:50] = 200
    box = torch.tensor([[30.0, 20.0, 49.0, 39.0]])
    settings, seen = DetectionViews(30, 24, hue=0, saturation=0, value=0), 0
    for seed in range(8):
        view = drawn_view(settings, (60, 80), Randomness(seed))
        clip = viewed_frames(frames, view)
        assert clip.shape == (1, 24, 24, 3)
        found, kept = viewed_boxes(box, (60, 80), view)
        bright = (clip[0, :, :, 0] > 100).nonzero()
        if kept.all() and len(bright):
            low, high = bright.amin(0).flip(0), bright.amax(0).flip(0)
            torch.testing.assert_close(found[0], torch.cat([low, high]).float(), rtol=0.0, atol=1.0)
            seen += 1
    assert seen >= 6


def test_draws_cover_their_range() -> None:
    settings = DetectionViews(36, 32)
    views = [drawn_view(settings, (40, 56), Randomness(1, k)) for k in range(400)]
    assert {view.flip for view in views} == {True, False}
    shifts = torch.tensor([view.shifts for view in views])
    assert shifts.amin(0).tolist() == [-10, -26, -26]
    assert shifts.amax(0).tolist() == [10, 26, 26]
    crops = torch.tensor([view.crop for view in views])
    assert crops.amin(0).tolist() == [0, 0, 32]
    assert crops.amax(0).tolist() == [3, 17, 32]


def test_settings_that_can_not_be_are_refused() -> None:
    with pytest.raises(ValueError, match="crop"):
        DetectionViews(200, 224)
    with pytest.raises(ValueError, match="probability"):
        DetectionViews(flip=1.5)
    with pytest.raises(ValueError, match="repaired or official"):
        DetectionViews(boxes="best")  # type: ignore[arg-type]
