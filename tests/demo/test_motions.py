"""The eight motions: what moves how, and that a single picture tells nothing of the class."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from videomae_fast.demo.motions import BRIGHT, MOTIONS, RADIUS, Mover, motion, motion_frames
from videomae_fast.demo.painting import Image

SIZE = 64


def mover(name: str, seed: int = 0) -> Mover:
    return Mover.of(np.random.default_rng(seed), name, RADIUS, BRIGHT)


def painted(one: Mover, time: float) -> Image:
    return one.paint(np.full((SIZE, SIZE, 3), 0.5, np.float32), time)


@pytest.mark.parametrize("seed", range(3))
def test_one_picture_is_the_same_for_every_class_and_a_second_one_is_not(seed: int) -> None:
    """What is drawn by chance is drawn alike, and the time at which a clip begins is by chance."""
    scenes = [motion(np.random.default_rng(seed), SIZE, label) for label in range(len(MOTIONS))]
    first = [scene(0.0) for scene in scenes]
    assert all((picture == first[0]).all() for picture in first)
    later = [scene(0.2) for scene in scenes]
    for i, picture in enumerate(later):
        for other in later[:i]:
            assert np.abs(picture - other).mean() > 1e-4  # a part of a shape, mostly hidden, turns


@pytest.mark.parametrize(
    ("name", "axis", "way"), [("left", 1, -1), ("right", 1, 1), ("up", 0, -1), ("down", 0, 1)]
)
def test_directions_shift_the_shape_and_come_in_again(name: str, axis: int, way: int) -> None:
    one = mover(name)
    speed = float(np.abs(one.velocity).sum())
    for pixels in (5, SIZE):
        moved = painted(one, pixels / SIZE / speed)
        np.testing.assert_allclose(moved, np.roll(painted(one, 0), way * pixels, axis), atol=2e-3)


@pytest.mark.parametrize(("name", "turns"), [("clockwise", -1), ("anticlockwise", 1)])
def test_turns_are_those_of_a_clock(name: str, turns: int) -> None:
    one = replace(mover(name), place=np.array([0.5, 0.5]))
    quarter = np.pi / 2 / abs(one.spin)
    np.testing.assert_allclose(painted(one, quarter), np.rot90(painted(one, 0), turns), atol=2e-3)


@pytest.mark.parametrize(("name", "sign"), [("nearer", 1), ("farther", -1)])
def test_shapes_grow_and_begin_again(name: str, sign: int) -> None:
    def area(time: float) -> float:
        return float((np.abs(painted(one, time) - 0.5).max(2) > 0.05).mean())

    one = replace(mover(name), kind=0, phase=0.5)
    assert sign * (area(0.1) - area(0.0)) > 0
    period = np.log(RADIUS[1] / RADIUS[0]) / abs(one.growth)
    np.testing.assert_allclose(painted(one, period), painted(one, 0), atol=1e-4)


def test_videos_are_a_function_of_seed_and_index() -> None:
    def video(seed: int, index: int) -> np.ndarray:
        return np.stack(list(motion_frames(seed, index, size=32, count=3, fps=6)))

    assert video(0, 1).shape == (3, 32, 32, 3)
    assert (video(0, 1) == video(0, 1)).all()
    for other in (video(1, 1), video(0, 1 + len(MOTIONS))):
        assert np.abs(other.astype(float) - video(0, 1)).mean() > 5
