"""Small clips whose frames carry their number."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

WIDTH, HEIGHT = 112, 84
GOP = 12
X264 = {"g": str(GOP), "bf": "3", "sc_threshold": "0"}
BITS = 10


def numbered_frame(number: int, width: int = WIDTH, height: int = HEIGHT) -> NDArray[np.uint8]:
    """A grey frame with a moving bar and its number as 10 blocks of 8 x 16 pixels."""
    frame = np.full((height, width, 3), 40, dtype=np.uint8)
    for bit in range(BITS):
        if number >> bit & 1:
            frame[8:24, 8 + bit * 10 : 16 + bit * 10] = 230
    frame[30:, (number * 2) % width] = (200, 90, 60)
    return frame


def read_number(frame: NDArray[np.uint8]) -> int:
    return sum(1 << bit for bit in range(BITS) if frame[16, 12 + bit * 10].mean() > 130)


def read_numbers(frames: NDArray[np.uint8]) -> list[int]:
    return [read_number(frame) for frame in frames]


def texture(number: int, width: int, height: int) -> NDArray[np.uint8]:
    """Moving stripes of a few widths under a little noise: something to learn, no flat cube."""
    x = np.arange(width)[None, :, None] + 2 * number
    y = np.arange(height)[:, None, None]
    waves = np.sin(x / np.array([4.0, 7.0, 11.0])) + np.cos(y / np.array([9.0, 5.0, 6.0]))
    noise = np.random.default_rng(number).normal(0, 5, (height, width, 3))
    return (128 + 50 * waves + noise).clip(0, 255).astype(np.uint8)


@contextmanager
def _same_scheduling() -> Iterator[None]:
    """SVT-AV1 makes the thread that encodes a real-time one where the user is root: it, and every
    process that it starts, would from then on let no other one have its core."""
    policy, parameters = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        yield
    finally:
        os.sched_setscheduler(0, policy, parameters)


def write_video(
    path: Path,
    frames: int = 60,
    *,
    size: tuple[int, int] = (WIDTH, HEIGHT),
    codec: str = "libx264",
    pixels: str = "yuv420p",
    options: dict[str, str] | None = None,
    container: dict[str, str] | None = None,
    times: Sequence[int] | None = None,
    make: Callable[[int, int, int], NDArray[np.uint8]] = numbered_frame,
) -> Path:
    """Encodes numbered frames; ``times`` are milliseconds, for a variable frame rate."""
    with _same_scheduling(), av.open(str(path), "w", options=container or {}) as output:
        stream = output.add_stream(codec, rate=25)
        stream.width, stream.height = size
        stream.pix_fmt = pixels
        stream.options = X264 if options is None else options
        if times is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        for number in range(frames):
            frame = av.VideoFrame.from_ndarray(make(number, *size), format="rgb24")
            frame.pts = number
            if times is not None:
                frame.pts, frame.time_base = times[number], Fraction(1, 1000)
            output.mux(stream.encode(frame))
        output.mux(stream.encode())
    return path


def remux(source: Path, target: Path, *, degrees: int = 0, shift: int = 0) -> Path:
    """Copies a video with rotation metadata, or with times moved by ``shift``."""
    with av.open(str(source)) as read, av.open(str(target), "w") as write:
        stream = write.add_stream_from_template(read.streams.video[0])
        if degrees:
            stream.set_display_rotation(degrees)
        for packet in read.demux(read.streams.video[0]):
            if packet.dts is None:
                continue
            packet.stream = stream
            packet.pts, packet.dts = packet.pts + shift, packet.dts + shift
            write.mux(packet)
    return target


def write_audio(path: Path) -> Path:
    with av.open(str(path), "w") as output:
        stream = output.add_stream("aac", rate=44100, layout="mono")
        for index in range(20):
            silence = np.zeros((1, 1024), dtype=np.float32)
            frame = av.AudioFrame.from_ndarray(silence, format="fltp", layout="mono")
            frame.sample_rate, frame.pts = 44100, index * 1024
            output.mux(stream.encode(frame))
        output.mux(stream.encode())
    return path
