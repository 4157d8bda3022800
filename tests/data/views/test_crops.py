from __future__ import annotations

import itertools

import numpy as np
import pytest
from PIL import Image

from videomae_fast.data import centre_box, crop_resize, multi_scale_box
from videomae_fast.data.views.crops import OFFSETS, SCALE_PAIRS
from videomae_fast.data.views.multi_scale import MULTI_SCALE, MultiScale
from videomae_fast.data.views.rule import ClipShape


def enumerate_official(width: int, height: int, target: int) -> set[tuple[int, int, int, int]]:
    """All crops that the official rule allows, written from its description."""
    short = min(width, height)
    sizes = [int(short * scale) for scale in (1, 0.875, 0.75, 0.66)]
    sizes = [target if target - 2 <= size <= target + 2 else size for size in sizes]
    boxes = set()
    for (i, w), (j, h) in itertools.product(enumerate(sizes), repeat=2):
        if abs(i - j) > 1:
            continue
        quarter_x, quarter_y = (width - w) // 4, (height - h) // 4
        places = set(itertools.product((0, 2, 4), repeat=2)) | set(
            itertools.product((1, 3), repeat=2)
        )
        boxes |= {(a * quarter_x, b * quarter_y, w, h) for a, b in places}
    return boxes


@pytest.mark.parametrize(
    ("width", "height", "target"),
    [
        (340, 256, 224),
        (256, 340, 224),
        (320, 240, 224),
        (299, 299, 224),
        (300, 227, 224),
        (300, 226, 224),
        (1920, 1080, 224),
    ],
)
def test_boxes_are_the_official_ones(width: int, height: int, target: int) -> None:
    ours = {
        multi_scale_box(width, height, (target, target), pair, offset)
        for pair in range(len(SCALE_PAIRS))
        for offset in range(len(OFFSETS))
    }
    assert ours == enumerate_official(width, height, target)
    assert len(SCALE_PAIRS) == 10
    assert len(set(OFFSETS)) == len(OFFSETS) == 13


def test_width_and_height_follow_their_own_target() -> None:
    sizes = {multi_scale_box(340, 256, (224, 192), pair, 0)[2:] for pair in range(10)}
    assert (192, 224) in sizes  # 0.75 * 256 is the width's target, 0.875 * 256 the height's
    assert {width for width, _ in sizes} == {256, 224, 192, 168}


def drawn(rule: MultiScale, draws: int = 400) -> list[tuple[int, ...]]:
    """The boxes of frames of 300 × 200 pixels for 96 × 96 ones."""
    words = np.random.default_rng(0).integers(0, 2**64, (draws, 5), np.uint64).tolist()
    shape = ClipShape(samples=1, frames=4, size=(96, 96))
    return [rule.plans((200, 300), 20, 1, each, shape)[0] for each in words]


@pytest.mark.parametrize(
    ("scales", "sides"),
    [((0.66, 1.0), {200, 175, 150, 132}), ((0.7, 0.9), {175, 150}), ((0.875, 0.875), {175})],
)
def test_only_scales_within_the_range_are_drawn(
    scales: tuple[float, float], sides: set[int]
) -> None:
    boxes = drawn(MultiScale(scales))
    assert {side for box in boxes for side in box[2:]} == sides
    assert len({box[:2] for box in boxes}) >= 13


def test_all_scales_are_drawn_as_before_they_could_be_chosen() -> None:
    assert MultiScale((0.66, 1.0)) == MULTI_SCALE
    assert MULTI_SCALE.pairs == tuple(range(len(SCALE_PAIRS)))


def test_a_range_without_a_scale_is_refused() -> None:
    with pytest.raises(ValueError, match=r"none of the scales 1\.0, 0\.875.* from 0\.8 to 0\.85"):
        MultiScale((0.8, 0.85))


@pytest.mark.parametrize(("width", "height"), [(222, 400), (223, 223), (112, 84), (1, 1), (3, 50)])
def test_boxes_stay_inside_small_frames(width: int, height: int) -> None:
    frames = np.zeros((1, height, width, 3), dtype=np.uint8)
    for pair, offset in itertools.product(range(10), range(13)):
        x, y, w, h = multi_scale_box(width, height, (224, 224), pair, offset)
        assert x >= 0
        assert y >= 0
        assert 1 <= w <= width - x
        assert 1 <= h <= height - y
    assert crop_resize(frames, (x, y, w, h), (224, 224)).shape == (1, 224, 224, 3)


@pytest.mark.parametrize(
    ("box", "size"),
    [((3, 5, 90, 70), (32, 48)), ((0, 0, 100, 80), (200, 160)), ((7, 2, 32, 48), (48, 32))],
)
def test_resize_is_that_of_a_cropped_image(
    box: tuple[int, int, int, int], size: tuple[int, int]
) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (3, 80, 100, 3), dtype=np.uint8)
    before = frames.copy()
    result = crop_resize(frames, box, size)
    x, y, w, h = box
    for frame, resized in zip(frames, result, strict=True):
        image = Image.fromarray(frame).crop((x, y, x + w, y + h))
        expected = np.asarray(image.resize((size[1], size[0]), Image.Resampling.BILINEAR))
        np.testing.assert_array_equal(resized, expected)
    np.testing.assert_array_equal(frames, before)
    assert result.flags.c_contiguous


def test_shrinking_is_antialiased() -> None:
    """A one-pixel checkerboard becomes grey; plain bilinear sampling would keep its extremes."""
    board = (np.indices((64, 64)).sum(0) % 2 * 255).astype(np.uint8)
    frames = np.repeat(board[None, :, :, None], 3, axis=3)
    result = crop_resize(frames, (0, 0, 64, 64), (8, 8))
    assert abs(result.astype(int) - 127).max() <= 3


def test_centre_box() -> None:
    assert centre_box(340, 256, (224, 224)) == (42, 0, 256, 256)
    assert centre_box(256, 340, (224, 224)) == (0, 42, 256, 256)
    assert centre_box(100, 100, (50, 100)) == (0, 25, 100, 50)
    assert centre_box(1, 1, (224, 224)) == (0, 0, 1, 1)


@pytest.mark.parametrize("box", [(-1, 0, 5, 5), (0, 0, 11, 5), (0, 6, 5, 5), (0, 0, 0, 5)])
def test_wrong_box(box: tuple[int, int, int, int]) -> None:
    with pytest.raises(ValueError, match="box"):
        crop_resize(np.zeros((1, 10, 10, 3), dtype=np.uint8), box, (4, 4))


def test_wrong_layout() -> None:
    with pytest.raises(ValueError, match=r"uint8 \[T, H, W, 3\]"):
        crop_resize(np.zeros((10, 10, 3), dtype=np.uint8), (0, 0, 5, 5), (4, 4))
