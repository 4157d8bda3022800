"""Eight classes of motion that no single picture tells apart, with things that distract.

The largest shape, which is also the brightest, moves in one of eight ways. Its place, turn and size
begin anywhere and go round without an end (what leaves at one side comes in at the other, what has
grown to its largest begins again small), so each picture by itself is drawn from one and the same
distribution whatever the class: what a single frame tells of it is nothing. Smaller and darker
shapes move in ways of their own.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from videomae_fast.demo.backdrops import Frame, lit_from_above
from videomae_fast.demo.painting import TAU, Image, axes, colour_of, edge, mix, shape_distance

MOTIONS: tuple[str, ...] = (
    "left", "right", "up", "down", "clockwise", "anticlockwise", "nearer", "farther",
)  # fmt: skip

SPEED, SPIN, GROWTH = (0.25, 0.45), (1.0, 2.0), (0.45, 0.75)
"""Picture widths, radians, and powers of e per second."""

RADIUS, SMALL = (0.25, 0.42), (0.06, 0.1)
"""Of the shape that makes the class and of what distracts, in picture widths."""

DISTRACTORS = 2
"""Smaller shapes: so many at most."""

BRIGHT, DIM = (0.85, 1.0), (0.25, 0.5)
"""Levels of the shape that makes the class, and of those that distract."""


@dataclass(frozen=True)
class Mover:
    """A two-coloured shape that moves without an end.

    Attributes:
        kind: of the shape: disc, square, ring, star or cross.
        place: of its centre at time 0, [2].
        turn: radians at time 0.
        phase: share 0..1 of the way from the smallest radius to the largest, at time 0.
        radii: smallest and largest.
        velocity: picture widths per second, [2].
        spin: radians per second; positive is clockwise.
        growth: powers of e per second.
        colours: of its two ends, each [3].
    """

    kind: int
    place: NDArray[np.float64]
    turn: float
    phase: float
    radii: tuple[float, float]
    velocity: NDArray[np.float64]
    spin: float
    growth: float
    colours: tuple[Image, Image]

    @staticmethod
    def of(
        rng: np.random.Generator,
        motion: str,
        radii: tuple[float, float],
        value: tuple[float, float],
    ) -> Mover:
        """One of a size and a level that moves in this way, all else by chance."""
        way = rng.uniform(*SPEED)
        directions = {
            "left": (-way, 0.0),
            "right": (way, 0.0),
            "up": (0.0, -way),
            "down": (0.0, way),
        }
        turning = {"clockwise": 1, "anticlockwise": -1}.get(motion, 0)
        growing = {"nearer": 1, "farther": -1}.get(motion, 0)
        return Mover(
            kind=int(rng.integers(0, 5)),
            place=rng.uniform(0, 1, 2),
            turn=rng.uniform(0, TAU),
            phase=rng.uniform(0, 1),
            radii=radii,
            velocity=np.array(directions.get(motion, (0.0, 0.0))),
            spin=turning * rng.uniform(*SPIN),
            growth=growing * rng.uniform(*GROWTH),
            colours=(colour_of(rng, value=value), 0.3 * colour_of(rng, value=value)),
        )

    def paint(self, picture: Image, time: float) -> Image:
        """The picture with the shape over it."""
        size = len(picture)
        x, y = axes(size)
        cx, cy = (np.float32(value) for value in (self.place + self.velocity * time) % 1)
        dx, dy = (
            (x - cx + np.float32(0.5)) % 1 - np.float32(0.5),
            ((y - cy + np.float32(0.5)) % 1 - np.float32(0.5)),
        )
        small, large = self.radii
        grown = (self.phase + self.growth * time / np.log(large / small)) % 1
        radius = float(small * (large / small) ** grown)
        turn = self.turn + self.spin * time
        along = np.float32(np.cos(turn)) * dx + np.float32(np.sin(turn)) * dy
        share = np.clip(0.5 + 0.5 * along / np.float32(radius), 0, 1)
        colour = mix(*self.colours, np.broadcast_to(share, (size, size)))
        distance = shape_distance(self.kind, dx, dy, radius, turn)
        inside = edge(distance, size)[..., None]
        return (picture + (colour - picture) * inside).astype(np.float32)


def motion(rng: np.random.Generator, size: int, label: int) -> Frame:
    """A scene of a class: a background, what distracts, and the shape whose motion is the class."""
    backdrop = lit_from_above(rng, size)
    distracting = [
        Mover.of(rng, MOTIONS[int(rng.integers(len(MOTIONS)))], SMALL, DIM)
        for _ in range(int(rng.integers(1, DISTRACTORS + 1)))
    ]
    movers = [*distracting, Mover.of(rng, MOTIONS[label], RADIUS, BRIGHT)]

    def frame(time: float) -> Image:
        picture = backdrop(time)
        for mover in movers:
            picture = mover.paint(picture, time)
        return picture

    return frame


def motion_frames(
    seed: int, index: int, *, size: int, count: int, fps: int
) -> Iterator[NDArray[np.uint8]]:
    """Video `index` of a seed: `count` frames, each uint8 [size, size, 3]. Classes take turns."""
    rng = np.random.default_rng([seed, index, len(MOTIONS)])
    frame = motion(rng, size, index % len(MOTIONS))
    for n in range(count):
        yield (np.clip(frame(n / fps), 0, 1) * 255 + 0.5).astype(np.uint8)
