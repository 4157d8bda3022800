"""Procedural moving pictures for the demo: textured, varied, and a function of their seed alone.

A scene is ``make(rng, size) -> frame(time)``: it draws its random numbers once and returns the
function that paints the picture at a time in seconds, fp32 [size, size, 3] in 0..1.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.floating[Any]]
Frame = Callable[[float], Image]
Scene = Callable[[np.random.Generator, int], Frame]

TAU = 2 * np.pi


def _axes(size: int) -> tuple[Image, Image]:
    """x and y of each pixel's centre, [1, size] and [size, 1], in picture widths 0..1."""
    line = (np.arange(size, dtype=np.float32) + 0.5) / size
    return line[None, :], line[:, None]


def _colour(rng: np.random.Generator, *, value: tuple[float, float] = (0.35, 1.0)) -> Image:
    """A random colour [3], saturated enough to be told from its neighbours."""
    hue, saturation, level = rng.uniform(0, 6), rng.uniform(0.3, 0.9), rng.uniform(*value)
    wheel = np.clip(np.abs((hue + np.array([0.0, 4.0, 2.0])) % 6 - 3) - 1, 0, 1)
    colour: Image = (level * (1 - saturation + saturation * wheel)).astype(np.float32)
    return colour


def _mix(a: Image, b: Image, share: Image) -> Image:
    """a where share is 0, b where it is 1; share [H, W]."""
    return (a + (b - a) * share[..., None]).astype(np.float32)


def _edge(distance: Image, size: int) -> Image:
    """Antialiased inside (1) of a signed distance in picture widths that is negative inside."""
    inside: Image = np.clip(0.5 - distance * size, 0, 1).astype(np.float32)
    return inside


class _Noise:
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


def _bounce(start: float, speed: float, time: float, low: float, high: float) -> float:
    """A point moving at a constant speed between two walls."""
    span = high - low
    place = (start - low + speed * time) % (2 * span)
    return low + (place if place < span else 2 * span - place)


def _shape_distance(kind: int, dx: Image, dy: Image, radius: float, turn: float) -> Image:
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


class _Sprites:
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
        self.colour = [_colour(rng, value=(0.6, 1.0)) for _ in range(count)]

    def paint(self, picture: Image, time: float) -> Image:
        size = len(picture)
        x, y = _axes(size)
        for i, radius in enumerate(self.radius):
            low, high = radius * 0.8, 1 - radius * 0.8
            cx, cy = (_bounce(self.place[i, a], self.speed[i, a], time, low, high) for a in (0, 1))
            turn = self.turn[i] + self.spin[i] * time
            dx, dy = x - np.float32(cx), y - np.float32(cy)
            shadow = _shape_distance(self.kind[i], dx - 0.02, dy - 0.03, radius, turn)
            shade = 0.45 * np.clip(0.5 - shadow * 20, 0, 1)
            picture = picture * (1 - shade[..., None]).astype(np.float32)
            inside = _edge(_shape_distance(self.kind[i], dx, dy, radius, turn), size)
            light = np.clip(1.05 - (dx + 1.4 * dy) / radius * 0.3, 0.4, 1.4)
            colour = np.clip(self.colour[i] * light[..., None], 0, 1)
            picture = _mix(picture, colour.astype(np.float32), inside)
        return picture


def panning(rng: np.random.Generator, size: int) -> Frame:
    """Shapes over a noise texture that pans."""
    noise, sprites = _Noise(rng), _Sprites(rng, int(rng.integers(1, 3)), (0.2, 0.28))
    dark, bright = _colour(rng, value=(0.1, 0.45)), _colour(rng, value=(0.6, 1.0))
    drift, zoom = rng.uniform(-0.25, 0.25, 2), rng.uniform(0.5, 0.9)
    x, y = _axes(size)

    def frame(time: float) -> Image:
        share = noise(x * zoom + drift[0] * time, y * zoom + drift[1] * time)
        return sprites.paint(_mix(dark, bright, share), time)

    return frame


def grating(rng: np.random.Generator, size: int) -> Frame:
    """A grating that drifts and turns, behind one shape."""
    first, second = _colour(rng), _colour(rng)
    turn, spin = rng.uniform(0, TAU), rng.uniform(-0.6, 0.6)
    waves, drift = rng.uniform(0.8, 1.5), rng.uniform(-0.6, 0.6)
    sprites = _Sprites(rng, 1, (0.2, 0.28))
    x, y = _axes(size)

    def frame(time: float) -> Image:
        angle = turn + spin * time
        along = (x - 0.5) * np.float32(np.cos(angle)) + (y - 0.5) * np.float32(np.sin(angle))
        share = 0.5 + 0.5 * np.sin(TAU * (waves * along - drift * time))
        return sprites.paint(_mix(first, second, share.astype(np.float32)), time)

    return frame


def pinwheel(rng: np.random.Generator, size: int) -> Frame:
    """A wheel of soft sectors that turns about a moving centre."""
    first, second, rim = _colour(rng), _colour(rng), _colour(rng, value=(0.15, 0.5))
    arms, spin = int(rng.integers(2, 4)), rng.choice([-1, 1]) * rng.uniform(0.5, 1.4)
    orbit, phase = rng.uniform(0.03, 0.12), rng.uniform(0, TAU)
    x, y = _axes(size)

    def frame(time: float) -> Image:
        dx = x - np.float32(0.5 + orbit * np.cos(phase + time))
        dy = y - np.float32(0.5 + orbit * np.sin(phase + time))
        radius = np.sqrt(dx * dx + dy * dy)
        blades = np.sin(arms * (np.arctan2(dy, dx) + spin * time)) * 1.5
        wheel = _mix(first, second, np.clip(0.5 + 0.5 * blades, 0, 1).astype(np.float32))
        return _mix(rim * (1.3 - 0.6 * y[..., None]), wheel, _edge(radius - 0.42, size))

    return frame


def zooming(rng: np.random.Generator, size: int) -> Frame:
    """A noise texture that is zoomed into, in three colours."""
    noise = _Noise(rng, cells=3, octaves=1)
    low, middle, high = (_colour(rng, value=v) for v in ((0.1, 0.4), (0.4, 0.8), (0.7, 1.0)))
    centre, rate = rng.uniform(0, 1, 2), rng.choice([-1, 1]) * rng.uniform(0.15, 0.4)
    turn = rng.uniform(-0.3, 0.3)
    x, y = _axes(size)

    def frame(time: float) -> Image:
        scale = np.float32(0.6 * np.exp(-rate * (time - 1)))
        c, s = np.float32(np.cos(turn * time)) * scale, np.float32(np.sin(turn * time)) * scale
        dx, dy = x - 0.5, y - 0.5
        value = noise(c * dx - s * dy + centre[0], s * dx + c * dy + centre[1])
        lower = _mix(low, middle, np.clip(value * 2, 0, 1))
        return _mix(lower, high, np.clip(value * 2 - 1, 0, 1))

    return frame


def landscape(rng: np.random.Generator, size: int) -> Frame:
    """Hills that pass at different speeds under a sun."""
    top, horizon, sun = _colour(rng), _colour(rng, value=(0.7, 1.0)), _colour(rng, value=(0.9, 1.0))
    layers = [_colour(rng, value=(0.65 - 0.2 * i, 0.8 - 0.2 * i)) for i in range(3)]
    phases, waves = rng.uniform(0, TAU, (3, 2)), rng.uniform(0.7, 1.6, 3)
    speed = rng.choice([-1, 1]) * rng.uniform(0.08, 0.16)
    sun_x, sun_y, sun_drift = (
        rng.uniform(0.25, 0.75),
        rng.uniform(0.15, 0.3),
        rng.uniform(-0.1, 0.1),
    )
    texture = _Noise(rng, cells=4, octaves=1)
    x, y = _axes(size)

    def frame(time: float) -> Image:
        picture = _mix(top, horizon, np.broadcast_to(np.clip(y * 1.6, 0, 1), (size, size)))
        cx, cy = sun_x + sun_drift * time, sun_y + 0.04 * time
        radius = np.sqrt((x - np.float32(cx)) ** 2 + (y - np.float32(cy)) ** 2)
        picture = _mix(picture, sun, np.clip(0.35 - radius, 0, 1).astype(np.float32))
        picture = _mix(picture, sun, _edge(radius - 0.1, size))
        for i, colour in enumerate(layers):
            at = x * np.float32(waves[i]) + np.float32(speed * (i + 1) * time * 1.5)
            ridge = 0.45 + 0.17 * i
            ridge = ridge + 0.07 * np.sin(TAU * at + phases[i, 0])
            ridge = ridge + 0.03 * np.sin(TAU * 2.3 * at + phases[i, 1])
            grain = 0.75 + 0.5 * texture(at * 0.5, y * 0.5 + 0.3 * i)
            hill = np.clip(colour * grain[..., None], 0, 1).astype(np.float32)
            picture = _mix(picture, hill, _edge(ridge.astype(np.float32) - y, size))
        return picture

    return frame


def floor(rng: np.random.Generator, size: int) -> Frame:
    """A chequered floor that slides, in perspective, under a ball that bounces."""
    first, second = _colour(rng, value=(0.7, 1.0)), _colour(rng, value=(0.1, 0.4))
    wall, ball = _colour(rng), _colour(rng, value=(0.7, 1.0))
    drift, phase = rng.uniform(-0.8, 0.8, 2), rng.uniform(0, TAU)
    x, y = _axes(size)
    radius, pace = rng.uniform(0.12, 0.17), rng.uniform(2.0, 3.2)
    start, speed = rng.uniform(0.2, 0.8), rng.choice([-1, 1]) * rng.uniform(0.15, 0.3)

    def frame(time: float) -> Image:
        depth = 0.35 / np.maximum(y - 0.4, 0.02)
        u = (x - 0.5) * depth * 1.5 + np.float32(drift[0] * time)
        v = depth * 1.5 + np.float32(drift[1] * time)
        soft = np.sin(np.pi * u) * np.sin(np.pi * v) * np.clip(2.5 / depth, 0.5, 6)
        tiles = _mix(first, second, np.clip(0.5 + soft, 0, 1).astype(np.float32))
        back = _mix(wall * 1.1, wall * 0.5, np.broadcast_to(y / 0.45, (size, size)))
        picture = _mix(back, tiles, np.broadcast_to(_edge(0.45 - y, size), (size, size)))
        cx = np.float32(_bounce(start, speed, time, radius, 1 - radius))
        height = abs(np.sin(pace * time + phase))
        cy = np.float32(0.82 - radius - 0.42 * height)
        shadow = ((x - cx) / (1.1 * radius)) ** 2 + ((y - 0.82) / (0.35 * radius)) ** 2
        dark = (0.6 - 0.35 * height) * np.clip(1.4 - shadow, 0, 1)
        picture = picture * (1 - dark[..., None]).astype(np.float32)
        dx, dy = (x - cx) / radius, (y - cy) / radius
        light = np.clip(1.1 - 0.35 * (dx + dy) - 0.25 * (dx * dx + dy * dy), 0.2, 1.3)
        shaded = np.clip(ball * light[..., None], 0, 1).astype(np.float32)
        return _mix(picture, shaded, _edge((np.sqrt(dx * dx + dy * dy) - 1) * radius, size))

    return frame


def plasma(rng: np.random.Generator, size: int) -> Frame:
    """Waves of three colours running through each other."""
    base = _colour(rng, value=(0.4, 0.7))
    waves = rng.uniform(-1.0, 1.0, (3, 2, 2))
    rates = rng.uniform(-2.5, 2.5, (3, 2))
    phases = rng.uniform(0, TAU, (3, 2))
    x, y = _axes(size)

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


def swarm(rng: np.random.Generator, size: int) -> Frame:
    """Many small shapes over a colour gradient that turns."""
    first, second = _colour(rng, value=(0.2, 0.6)), _colour(rng, value=(0.5, 0.9))
    turn, spin = rng.uniform(0, TAU), rng.uniform(-0.8, 0.8)
    sprites = _Sprites(rng, int(rng.integers(3, 5)), (0.13, 0.2))
    x, y = _axes(size)

    def frame(time: float) -> Image:
        angle = turn + spin * time
        along = (x - 0.5) * np.float32(np.cos(angle)) + (y - 0.5) * np.float32(np.sin(angle))
        return sprites.paint(_mix(first, second, np.clip(0.5 + along, 0, 1)), time)

    return frame


SCENES: tuple[Scene, ...] = (
    panning, landscape, grating, floor, zooming, swarm, pinwheel, plasma,
)  # fmt: skip


def frames(
    seed: int, index: int, *, size: int, count: int, fps: int
) -> Iterator[NDArray[np.uint8]]:
    """Video `index` of a seed: `count` frames, each uint8 [size, size, 3]. Kinds take turns."""
    rng = np.random.default_rng([seed, index])
    frame = SCENES[index % len(SCENES)](rng, size)
    for n in range(count):
        yield (np.clip(frame(n / fps), 0, 1) * 255 + 0.5).astype(np.uint8)
