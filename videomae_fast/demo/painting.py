"""What scenes are painted with: axes, colours, edges, noise, and shapes that bounce.

Pictures are fp32 [size, size, 3] in 0..1, places and lengths are in picture widths.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.floating[Any]]

TAU = 2 * np.pi


def axes(size: int) -> tuple[Image, Image]:
    """x and y of each pixel's centre, [1, size] and [size, 1], in picture widths 0..1."""
    line = (np.arange(size, dtype=np.float32) + 0.5) / size
    return line[None, :], line[:, None]


def colour_of(rng: np.random.Generator, *, value: tuple[float, float] = (0.35, 1.0)) -> Image:
    """A random colour [3], saturated enough to be told from its neighbours."""
    hue, saturation, level = rng.uniform(0, 6), rng.uniform(0.3, 0.9), rng.uniform(*value)
    wheel = np.clip(np.abs((hue + np.array([0.0, 4.0, 2.0])) % 6 - 3) - 1, 0, 1)
    colour: Image = (level * (1 - saturation + saturation * wheel)).astype(np.float32)
    return colour


def mix(a: Image, b: Image, share: Image) -> Image:
    """a where share is 0, b where it is 1; share [H, W]."""
    return (a + (b - a) * share[..., None]).astype(np.float32)


def edge(distance: Image, size: int) -> Image:
    """Antialiased inside (1) of a signed distance in picture widths that is negative inside."""
    inside: Image = np.clip(0.5 - distance * size, 0, 1).astype(np.float32)
    return inside


class Noise:
    """Smooth value noise that wraps around, sampled at any place and zoom; a few octaves."""

    def __init__(self, rng: np.random.Generator, cells: int = 2, octaves: int = 1) -> None:
        self.octaves = [
            rng.uniform(0, 1, (cells * 2**o,) * 2).astype(np.float32) for o in range(octaves)
        ]

    def __call__(self, x: Image, y: Image) -> Image:
        """Values around 0..1 at x, y (any broadcastable shapes; one period is 1)."""
        x, y = np.broadcast_arrays(x, y)
        total = np.zeros(x.shape, np.float32)
        weight = 0.0
        for octave, table in enumerate(self.octaves):
            n = len(table)
            fx, fy = x * n, y * n
            ix, iy = np.floor(fx).astype(np.int64), np.floor(fy).astype(np.int64)
            ux, uy = fx - ix, fy - iy
            ux, uy = ux * ux * (3 - 2 * ux), uy * uy * (3 - 2 * uy)
            ix, iy = ix % n, iy % n
            right, below = (ix + 1) % n, (iy + 1) % n
            top = table[iy, ix] * (1 - ux) + table[iy, right] * ux
            bottom = table[below, ix] * (1 - ux) + table[below, right] * ux
            total += 0.5**octave * (top * (1 - uy) + bottom * uy)
            weight += 0.5**octave
        spread = 1.4 * (total / weight - 0.5) + 0.5
        value: Image = np.clip(spread, 0, 1).astype(np.float32)
        return value


def bounce(start: float, speed: float, time: float, low: float, high: float) -> float:
    """A point moving at a constant speed between two walls."""
    span = high - low
    place = (start - low + speed * time) % (2 * span)
    return low + (place if place < span else 2 * span - place)


def shape_distance(kind: int, dx: Image, dy: Image, radius: float, turn: float) -> Image:
    """Signed distance (roughly) of a disc, square, ring, star or cross around the origin."""
    c, s = np.float32(np.cos(turn)), np.float32(np.sin(turn))
    u, v = c * dx + s * dy, c * dy - s * dx
    r = np.sqrt(u * u + v * v)
    distance: Image
    if kind == 0:
        distance = r - radius
    elif kind == 1:
        distance = np.maximum(np.abs(u), np.abs(v)) - 0.85 * radius
    elif kind == 2:
        distance = np.abs(r - 0.75 * radius) - 0.28 * radius
    elif kind == 3:
        distance = r - radius * (0.75 + 0.3 * np.cos(5 * np.arctan2(v, u)))
    else:
        arm = np.minimum(np.abs(u), np.abs(v)) - 0.33 * radius
        distance = np.maximum(arm, np.maximum(np.abs(u), np.abs(v)) - radius)
    return distance


class Sprites:
    """Shapes that bounce off the walls and turn, shaded and with a shadow."""

    def __init__(self, rng: np.random.Generator, count: int, radius: tuple[float, float]) -> None:
        self.kind = rng.integers(0, 5, count)
        self.radius = rng.uniform(*radius, count)
        self.place = rng.uniform(0.2, 0.8, (count, 2))
        heading = rng.uniform(0, TAU, count)
        speed = rng.uniform(0.12, 0.4, count)
        self.speed = np.stack([np.cos(heading), np.sin(heading)], 1) * speed[:, None]
        self.turn = rng.uniform(0, TAU, count)
        self.spin = rng.uniform(-2, 2, count)
        self.colour = [colour_of(rng, value=(0.6, 1.0)) for _ in range(count)]

    def paint(self, picture: Image, time: float) -> Image:
        size = len(picture)
        x, y = axes(size)
        for i, radius in enumerate(self.radius):
            low, high = radius * 0.8, 1 - radius * 0.8
            cx, cy = (bounce(self.place[i, a], self.speed[i, a], time, low, high) for a in (0, 1))
            turn = self.turn[i] + self.spin[i] * time
            dx, dy = x - np.float32(cx), y - np.float32(cy)
            shadow = shape_distance(self.kind[i], dx - 0.02, dy - 0.03, radius, turn)
            shade = 0.45 * np.clip(0.5 - shadow * 20, 0, 1)
            picture = picture * (1 - shade[..., None]).astype(np.float32)
            inside = edge(shape_distance(self.kind[i], dx, dy, radius, turn), size)
            light = np.clip(1.05 - (dx + 1.4 * dy) / radius * 0.3, 0.4, 1.4)
            colour = np.clip(self.colour[i] * light[..., None], 0, 1)
            picture = mix(picture, colour.astype(np.float32), inside)
        return picture
