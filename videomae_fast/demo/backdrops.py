"""Backgrounds: what scenes and motions are painted over."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from videomae_fast.demo.painting import TAU, Image, Noise, axes, colour_of, mix

Frame = Callable[[float], Image]
"""Time in seconds to a picture, fp32 [size, size, 3] in 0..1."""

Scene = Callable[[np.random.Generator, int], Frame]
"""Draws its random numbers once, for a size in pixels, and returns what paints the pictures."""


def panning_noise(rng: np.random.Generator, size: int) -> Frame:
    """A noise texture that pans."""
    noise = Noise(rng)
    dark, bright = colour_of(rng, value=(0.1, 0.45)), colour_of(rng, value=(0.6, 1.0))
    drift, zoom = rng.uniform(-0.25, 0.25, 2), rng.uniform(0.5, 0.9)
    x, y = axes(size)

    def frame(time: float) -> Image:
        share = noise(x * zoom + drift[0] * time, y * zoom + drift[1] * time)
        return mix(dark, bright, share)

    return frame


def drifting_waves(rng: np.random.Generator, size: int) -> Frame:
    """A grating that drifts and turns."""
    first, second = colour_of(rng), colour_of(rng)
    turn, spin = rng.uniform(0, TAU), rng.uniform(-0.6, 0.6)
    waves, drift = rng.uniform(0.8, 1.5), rng.uniform(-0.6, 0.6)
    x, y = axes(size)

    def frame(time: float) -> Image:
        angle = turn + spin * time
        along = (x - 0.5) * np.float32(np.cos(angle)) + (y - 0.5) * np.float32(np.sin(angle))
        share = 0.5 + 0.5 * np.sin(TAU * (waves * along - drift * time))
        return mix(first, second, share.astype(np.float32))

    return frame


def turning_gradient(rng: np.random.Generator, size: int) -> Frame:
    """A gradient between two colours that turns."""
    first, second = colour_of(rng, value=(0.2, 0.6)), colour_of(rng, value=(0.5, 0.9))
    turn, spin = rng.uniform(0, TAU), rng.uniform(-0.8, 0.8)
    x, y = axes(size)

    def frame(time: float) -> Image:
        angle = turn + spin * time
        along = (x - 0.5) * np.float32(np.cos(angle)) + (y - 0.5) * np.float32(np.sin(angle))
        return mix(first, second, np.clip(0.5 + along, 0, 1))

    return frame


def plasma(rng: np.random.Generator, size: int) -> Frame:
    """Waves of three colours running through each other."""
    base = colour_of(rng, value=(0.4, 0.7))
    waves = rng.uniform(-1.0, 1.0, (3, 2, 2))
    rates = rng.uniform(-2.5, 2.5, (3, 2))
    phases = rng.uniform(0, TAU, (3, 2))
    x, y = axes(size)

    def frame(time: float) -> Image:
        picture = np.empty((size, size, 3), np.float32)
        for c in range(3):
            total = np.zeros((size, size), np.float32)
            for k in range(2):
                at = waves[c, k, 0] * x + waves[c, k, 1] * y
                total = total + np.sin(TAU * at + rates[c, k] * time + phases[c, k])
            picture[..., c] = base[c] + 0.22 * total
        return np.clip(picture, 0, 1)

    return frame


def lit_from_above(rng: np.random.Generator, size: int) -> Frame:
    """A colour that gets brighter downwards, and stays as it is.

    A cube's pattern is the same wherever it is: what there is to learn is what moves over it.
    """
    colour = colour_of(rng, value=(0.3, 0.5))
    _, y = axes(size)
    column = colour * (0.25 + 0.75 * y[..., None])
    picture = np.broadcast_to(column, (size, size, 3)).astype(np.float32)
    return lambda time: picture
