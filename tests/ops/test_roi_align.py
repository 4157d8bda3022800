"""RoIAlign against the golden values and sample by sample in fp64."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from videomae_fast.ops.roi_align import RoiSpec, roi_align

PATH = Path(__file__).parents[1] / "golden" / "downstream_ava_model.safetensors"
BOTH = (0, 2), (False, True)


@pytest.mark.parametrize("ratio", BOTH[0])
@pytest.mark.parametrize("aligned", BOTH[1])
def test_values_and_gradients_are_the_golden_ones(ratio: int, aligned: bool) -> None:
    with safe_open(PATH, "pt") as file:
        name = f"roi/sampling{ratio}_aligned{int(aligned)}"
        wanted, gradient = file.get_tensor(name), file.get_tensor(f"{name}_grad")
        features, rois = file.get_tensor("roi/features"), file.get_tensor("roi/rois")
        weights = file.get_tensor("roi/weights")
    features.requires_grad_()
    spec = RoiSpec(7, 1 / 16, ratio, aligned)
    found = roi_align(features, rois[:, 1:], rois[:, 0].long(), spec)
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)
    (found * weights).sum().backward()
    assert features.grad is not None
    torch.testing.assert_close(features.grad, gradient, rtol=1e-5, atol=1e-5)


def _one_sample(plane: Tensor, y: float, x: float) -> float:
    height, width = plane.shape
    if not (-1 <= y <= height and -1 <= x <= width):
        return 0.0
    y, x = min(max(y, 0.0), height - 1), min(max(x, 0.0), width - 1)
    top, left = int(y), int(x)
    low, right = min(top + 1, height - 1), min(left + 1, width - 1)
    down, across = y - top, x - left
    above = float(plane[top, left]) * (1 - across) + float(plane[top, right]) * across
    below = float(plane[low, left]) * (1 - across) + float(plane[low, right]) * across
    return above * (1 - down) + below * down


def _by_samples(plane: Tensor, box: list[float], spec: RoiSpec) -> Tensor:
    """One plane [H, W] and one box, as the definition has it."""
    shift = 0.5 if spec.aligned else 0.0
    x, y, right, bottom = (value * spec.scale - shift for value in box)
    sides = [bottom - y, right - x]
    if not spec.aligned:
        sides = [max(side, 1.0) for side in sides]
    down, across = (side / spec.size for side in sides)
    rows, columns = (spec.sampling_ratio or math.ceil(side) for side in (down, across))
    out = torch.zeros(spec.size, spec.size, dtype=torch.float64)
    for p in range(spec.size):
        for q in range(spec.size):
            for i in range(rows):
                for j in range(columns):
                    out[p, q] += _one_sample(
                        plane,
                        y + p * down + (i + 0.5) * down / rows,
                        x + q * across + (j + 0.5) * across / columns,
                    )
    return out / max(rows * columns, 1)


@pytest.mark.parametrize("ratio", BOTH[0])
@pytest.mark.parametrize("aligned", BOTH[1])
def test_any_box_is_the_mean_of_its_samples(ratio: int, aligned: bool) -> None:
    generator = torch.Generator().manual_seed(3)
    plane = torch.randn(6, 9, dtype=torch.float64, generator=generator)
    low = torch.rand(12, 2, dtype=torch.float64, generator=generator) * 160 - 40
    side = torch.rand(12, 2, dtype=torch.float64, generator=generator).square() * 300
    boxes = torch.cat([low, low + side], 1)
    boxes[-1] = torch.tensor([-900.0, -500.0, 1100.0, 900.0])  # most samples outside
    boxes[-2] = torch.tensor([20.0, 30.0, 20.0, 30.0])  # nothing but a point
    boxes[-3] = torch.tensor([500.0, 500.0, 600.0, 600.0])  # all outside
    spec = RoiSpec(3, 1 / 14, ratio, aligned)
    found = roi_align(plane[None, None], boxes, torch.zeros(12, dtype=torch.int64), spec)
    for box, one in zip(boxes.tolist(), found, strict=True):
        torch.testing.assert_close(one[0], _by_samples(plane, box, spec), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("boxes", "clip", "told"),
    [
        ([[0.0, 0.0, 5.0]], [0], r"boxes must be floating point \[N, 4\]"),
        ([[0.0, 0.0, 5.0, 5.0]], [0, 1], r"clip must be int64 \[N=1\]"),
        ([[0.0, 0.0, 5.0, 5.0], [0.0, 0.0, math.nan, 5.0]], [0, 1], "box 1 is"),
        ([[0.0, 9.0, 5.0, 5.0]], [0], "box 0 is .*end no sooner"),
        ([[0.0, 0.0, 5.0, 5.0]], [2], "box 0 is of clip 2: clips are 0 to 1"),
        ([[0.0, 0.0, 5.0, 5.0]], [-1], "box 0 is of clip -1"),
    ],
)
def test_bad_boxes_are_named(boxes: list[list[float]], clip: list[int], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        roi_align(torch.zeros(2, 5, 3, 4), torch.tensor(boxes), torch.tensor(clip), RoiSpec())


def test_other_bad_arguments_are_named() -> None:
    boxes, clip = torch.zeros(1, 4), torch.zeros(1, dtype=torch.int64)
    with pytest.raises(ValueError, match="features must be"):
        roi_align(torch.zeros(2, 5, 4), boxes, clip, RoiSpec())
    with pytest.raises(ValueError, match="scale above 0"):
        roi_align(torch.zeros(1, 2, 5, 4), boxes, clip, RoiSpec(scale=0.0))
