"""Procedural moving pictures for the demo: textured, varied, and a function of their seed alone.

A scene is ``make(rng, size) -> frame(time)``: it draws its random numbers once and returns the
function that paints the picture at a time in seconds, fp32 [size, size, 3] in 0..1.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from videomae_fast.demo.backdrops import (
    Frame,
    Scene,
    drifting_waves,
    panning_noise,
    plasma,
    turning_gradient,
)
from videomae_fast.demo.painting import (
    TAU,
    Image,
    Noise,
    Sprites,
    axes,
    bounce,
    colour_of,
    edge,
    mix,
)


def panning(rng: np.random.Generator, size: int) -> Frame:
    """Shapes over a noise texture that pans."""
    sprites = Sprites(rng, int(rng.integers(1, 3)), (0.2, 0.28))
    return _over(panning_noise(rng, size), sprites)


def grating(rng: np.random.Generator, size: int) -> Frame:
    """A grating that drifts and turns, behind one shape."""
    return _over(drifting_waves(rng, size), Sprites(rng, 1, (0.2, 0.28)))


def pinwheel(rng: np.random.Generator, size: int) -> Frame:
    """A wheel of soft sectors that turns about a moving centre."""
    first, second, rim = colour_of(rng), colour_of(rng), colour_of(rng, value=(0.15, 0.5))
    arms, spin = int(rng.integers(2, 4)), rng.choice([-1, 1]) * rng.uniform(0.5, 1.4)
    orbit, phase = rng.uniform(0.03, 0.12), rng.uniform(0, TAU)
    x, y = axes(size)

    def frame(time: float) -> Image:
        dx = x - np.float32(0.5 + orbit * np.cos(phase + time))
        dy = y - np.float32(0.5 + orbit * np.sin(phase + time))
        radius = np.sqrt(dx * dx + dy * dy)
        blades = np.sin(arms * (np.arctan2(dy, dx) + spin * time)) * 1.5
        wheel = mix(first, second, np.clip(0.5 + 0.5 * blades, 0, 1).astype(np.float32))
        return mix(rim * (1.3 - 0.6 * y[..., None]), wheel, edge(radius - 0.42, size))

    return frame


def zooming(rng: np.random.Generator, size: int) -> Frame:
    """A noise texture that is zoomed into, in three colours."""
    noise = Noise(rng, cells=3, octaves=1)
    low, middle, high = (colour_of(rng, value=v) for v in ((0.1, 0.4), (0.4, 0.8), (0.7, 1.0)))
    centre, rate = rng.uniform(0, 1, 2), rng.choice([-1, 1]) * rng.uniform(0.15, 0.4)
    turn = rng.uniform(-0.3, 0.3)
    x, y = axes(size)

    def frame(time: float) -> Image:
        scale = np.float32(0.6 * np.exp(-rate * (time - 1)))
        c, s = np.float32(np.cos(turn * time)) * scale, np.float32(np.sin(turn * time)) * scale
        dx, dy = x - 0.5, y - 0.5
        value = noise(c * dx - s * dy + centre[0], s * dx + c * dy + centre[1])
        lower = mix(low, middle, np.clip(value * 2, 0, 1))
        return mix(lower, high, np.clip(value * 2 - 1, 0, 1))

    return frame


def landscape(rng: np.random.Generator, size: int) -> Frame:
    """Hills that pass at different speeds under a sun."""
    top, horizon, sun = (
        colour_of(rng),
        colour_of(rng, value=(0.7, 1.0)),
        colour_of(rng, value=(0.9, 1.0)),
    )
    layers = [colour_of(rng, value=(0.65 - 0.2 * i, 0.8 - 0.2 * i)) for i in range(3)]
    phases, waves = rng.uniform(0, TAU, (3, 2)), rng.uniform(0.7, 1.6, 3)
    speed = rng.choice([-1, 1]) * rng.uniform(0.08, 0.16)
    sun_x, sun_y, sun_drift = (
        rng.uniform(0.25, 0.75),
        rng.uniform(0.15, 0.3),
        rng.uniform(-0.1, 0.1),
    )
    texture = Noise(rng, cells=4, octaves=1)
    x, y = axes(size)

    def frame(time: float) -> Image:
        picture = mix(top, horizon, np.broadcast_to(np.clip(y * 1.6, 0, 1), (size, size)))
        cx, cy = sun_x + sun_drift * time, sun_y + 0.04 * time
        radius = np.sqrt((x - np.float32(cx)) ** 2 + (y - np.float32(cy)) ** 2)
        picture = mix(picture, sun, np.clip(0.35 - radius, 0, 1).astype(np.float32))
        picture = mix(picture, sun, edge(radius - 0.1, size))
        for i, colour in enumerate(layers):
            at = x * np.float32(waves[i]) + np.float32(speed * (i + 1) * time * 1.5)
            ridge = 0.45 + 0.17 * i
            ridge = ridge + 0.07 * np.sin(TAU * at + phases[i, 0])
            ridge = ridge + 0.03 * np.sin(TAU * 2.3 * at + phases[i, 1])
            grain = 0.75 + 0.5 * texture(at * 0.5, y * 0.5 + 0.3 * i)
            hill = np.clip(colour * grain[..., None], 0, 1).astype(np.float32)
            picture = mix(picture, hill, edge(ridge.astype(np.float32) - y, size))
        return picture

    return frame


def floor(rng: np.random.Generator, size: int) -> Frame:
    """A chequered floor that slides, in perspective, under a ball that bounces."""
    first, second = colour_of(rng, value=(0.7, 1.0)), colour_of(rng, value=(0.1, 0.4))
    wall, ball = colour_of(rng), colour_of(rng, value=(0.7, 1.0))
    drift, phase = rng.uniform(-0.8, 0.8, 2), rng.uniform(0, TAU)
    x, y = axes(size)
    radius, pace = rng.uniform(0.12, 0.17), rng.uniform(2.0, 3.2)
    start, speed = rng.uniform(0.2, 0.8), rng.choice([-1, 1]) * rng.uniform(0.15, 0.3)

    def frame(time: float) -> Image:
        depth = 0.35 / np.maximum(y - 0.4, 0.02)
        u = (x - 0.5) * depth * 1.5 + np.float32(drift[0] * time)
        v = depth * 1.5 + np.float32(drift[1] * time)
        soft = np.sin(np.pi * u) * np.sin(np.pi * v) * np.clip(2.5 / depth, 0.5, 6)
        tiles = mix(first, second, np.clip(0.5 + soft, 0, 1).astype(np.float32))
        back = mix(wall * 1.1, wall * 0.5, np.broadcast_to(y / 0.45, (size, size)))
        picture = mix(back, tiles, np.broadcast_to(edge(0.45 - y, size), (size, size)))
        cx = np.float32(bounce(start, speed, time, radius, 1 - radius))
        height = abs(np.sin(pace * time + phase))
        cy = np.float32(0.82 - radius - 0.42 * height)
        shadow = ((x - cx) / (1.1 * radius)) ** 2 + ((y - 0.82) / (0.35 * radius)) ** 2
        dark = (0.6 - 0.35 * height) * np.clip(1.4 - shadow, 0, 1)
        picture = picture * (1 - dark[..., None]).astype(np.float32)
        dx, dy = (x - cx) / radius, (y - cy) / radius
        light = np.clip(1.1 - 0.35 * (dx + dy) - 0.25 * (dx * dx + dy * dy), 0.2, 1.3)
        shaded = np.clip(ball * light[..., None], 0, 1).astype(np.float32)
        return mix(picture, shaded, edge((np.sqrt(dx * dx + dy * dy) - 1) * radius, size))

    return frame


def swarm(rng: np.random.Generator, size: int) -> Frame:
    """Many small shapes over a colour gradient that turns."""
    sprites = Sprites(rng, int(rng.integers(3, 5)), (0.13, 0.2))
    return _over(turning_gradient(rng, size), sprites)


def _over(backdrop: Frame, sprites: Sprites) -> Frame:
    return lambda time: sprites.paint(backdrop(time), time)


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
