"""What is drawn: the official arguments, and distributions."""

from __future__ import annotations

import math
from collections import Counter

import pytest

from tests.support.downstream import downstream
from videomae_fast.data.augment.policy import OPERATIONS, AugmentSettings, draw_augmentation
from videomae_fast.data.randomness import Randomness

OFFICIAL = {
    "AutoContrast": "auto_contrast", "Equalize": "equalize", "Invert": "invert",
    "Rotate": "rotate", "PosterizeIncreasing": "posterize", "SolarizeIncreasing": "solarize",
    "SolarizeAdd": "solarize_add", "ColorIncreasing": "color", "ContrastIncreasing": "contrast",
    "BrightnessIncreasing": "brightness", "SharpnessIncreasing": "sharpness", "ShearX": "shear_x",
    "ShearY": "shear_y", "TranslateXRel": "translate_x", "TranslateYRel": "translate_y",
}  # fmt: skip

ARGUMENTS = downstream("randaugment_ops").info["arguments"]


class _Coin(Randomness):
    """Falls as it is told."""

    def __init__(self, positive: bool) -> None:
        super().__init__(0)
        self._positive = positive

    def chance(self, probability: float) -> bool:
        return self._positive


@pytest.mark.parametrize("key", [key for key in ARGUMENTS if key.split("/")[0] in OFFICIAL])
def test_arguments_are_the_official_ones(key: str) -> None:
    name, _, magnitude, sign = key.split("/")
    found = OPERATIONS[OFFICIAL[name]](_Coin(sign == "pos"), float(magnitude))
    assert ([] if found is None else [found]) == ARGUMENTS[key]


def test_every_operation_is_drawn_as_often() -> None:
    rng = Randomness(1)
    drawn = [
        draw_augmentation(AugmentSettings(), (40, 60), (32, 32), rng).operations
        for _ in range(1500)
    ]
    counts = Counter(one.name for each in drawn for one in each)
    assert set(counts) == set(OPERATIONS)
    assert 2700 < sum(counts.values()) < 3300  # half of 4 each
    assert max(counts.values()) < 1.6 * min(counts.values())
    factors = [one.argument for each in drawn for one in each if one.name == "contrast"]
    assert {factor > 1 for factor in factors if factor is not None} == {True, False}
    bits = [one.argument for each in drawn for one in each if one.name == "posterize"]
    assert min(bit for bit in bits if bit is not None) >= 1


def test_crops_lie_in_the_frame_and_have_the_drawn_areas() -> None:
    rng = Randomness(2)
    settings = AugmentSettings()
    areas = []
    for _ in range(1500):
        top, left, h, w = draw_augmentation(settings, (120, 160), (32, 32), rng).crop
        assert top >= 0
        assert left >= 0
        assert top + h <= 120
        assert left + w <= 160
        assert 0.65 < w / h < 1.55
        areas.append(h * w / (120 * 160))
    assert 0.07 < min(areas) < 0.12
    assert 0.4 < sum(areas) / len(areas) < 0.55


@pytest.mark.parametrize(
    ("frame", "crop"), [((10, 400), (0, 193, 10, 13)), ((400, 10), (193, 0, 13, 10))]
)
def test_frames_that_no_crop_fits_are_cut_in_the_middle(
    frame: tuple[int, int], crop: tuple[int, int, int, int]
) -> None:
    settings = AugmentSettings(area=(1.0, 1.0))
    assert draw_augmentation(settings, frame, (32, 32), Randomness(3)).crop == crop


def test_holes_are_smaller_than_the_clip() -> None:
    rng = Randomness(4)
    settings = AugmentSettings(erase=1.0)
    drawn = [draw_augmentation(settings, (64, 64), (32, 40), rng) for _ in range(800)]
    holes = [each.hole for each in drawn if each.hole is not None]
    assert len(holes) > 750
    for top, left, h, w in holes:
        assert 0 <= top <= 32 - h
        assert 0 <= left <= 40 - w
        assert h < 32
        assert w < 40
    assert len({each.noise for each in drawn}) == 800
    logs = [math.log(h / w) for _, _, h, w in holes]
    assert abs(sum(logs) / len(logs)) < 0.12


def test_probabilities_of_flip_and_hole() -> None:
    rng = Randomness(5)
    drawn = [draw_augmentation(AugmentSettings(), (64, 64), (32, 32), rng) for _ in range(1500)]
    assert 0.46 < sum(each.flip for each in drawn) / 1500 < 0.54
    assert 0.21 < sum(each.hole is not None for each in drawn) / 1500 < 0.29
    never = AugmentSettings(operations=0, flip=0, erase=0)
    drawn = [draw_augmentation(never, (64, 64), (32, 32), rng) for _ in range(20)]
    assert not any(each.flip or each.hole or each.operations for each in drawn)


@pytest.mark.parametrize(
    "settings",
    [{"magnitude": 11}, {"flip": 2}, {"area": (0, 1)}, {"area": (0.5, 1.5)}, {"aspect": (2, 1)}],
)
def test_impossible_settings_are_refused(settings: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(settings))):
        AugmentSettings(**settings)  # type: ignore[arg-type]


@pytest.mark.parametrize("frame", [(1, 40), (40, 1)])
def test_a_crop_has_a_pixel_whatever_the_frame(frame: tuple[int, int]) -> None:
    narrow, flat = (0.2, 0.4), (2.5, 5.0)
    settings = AugmentSettings(aspect=narrow if frame[0] == 1 else flat, area=(0.01, 0.01))
    for seed in range(20):
        _, _, height, width = draw_augmentation(settings, frame, (8, 8), Randomness(seed)).crop
        assert min(height, width) >= 1
