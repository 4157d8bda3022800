"""Key frames with persons and their actions, as pictures and animations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from videomae_fast.data.boxes.clips import KeyFrameClips
from videomae_fast.data.boxes.entries import KeyFrameEntry
from videomae_fast.data.decoders import Frames
from videomae_fast.data.failures import Failure
from videomae_fast.data.order import Draw
from videomae_fast.data.reading import read

LEAST_SIDE, ACTIONS, LEAST_SCORE = 320, 3, 0.1
"""Pixels of the drawn short side; the most actions of a person, and the least score, written."""
FOUND, ANNOTATED, INK = (14, 116, 220), (22, 163, 74), (255, 255, 255)


class Scored(Protocol):
    """A key frame with the scores of its boxes."""

    @property
    def place(self) -> int: ...

    @property
    def shares(self) -> NDArray[np.float64]: ...

    @property
    def scores(self) -> NDArray[np.float64]: ...

    @property
    def failure(self) -> Failure | None: ...


def save_detections(
    folder: Path,
    clips: KeyFrameClips,
    scored: Sequence[Scored],
    names: Mapping[int, str],
    *,
    count: int,
    seconds: float = 0.15,
) -> int:
    """Writes ``detections/NUMBER.png`` and ``.gif`` of some key frames, evenly spread over all.

    Args:
        folder: that ``detections`` is made in; older pictures there go.
        clips: that the key frames are of.
        scored: their scores.
        names: of the actions that may be written, by number.
        count: how many are drawn.
        seconds: that each frame of an animation stays.

    Returns:
        How many were drawn.

    Raises:
        DecodeError: a video that was read before can't be read again.
    """
    target = folder / "detections"
    target.mkdir(exist_ok=True)
    for old in (*target.glob("*.png"), *target.glob("*.gif")):
        old.unlink()
    there = [one for one in scored if one.failure is None and len(one.shares)]
    chosen = sorted({int(i) for i in np.linspace(0, len(there) - 1, min(count, len(there)))})
    draws = {draw.position: draw for draw in clips.every()}
    for number, index in enumerate(chosen):
        one = there[index]
        frames, entry = read_key_frame(clips, draws[one.place])
        sheets = drawn_clip(frames, entry, one.shares, one.scores, names)
        sheets[len(sheets) // 2].save(target / f"{number}.png", format="PNG")
        sheets[0].save(
            target / f"{number}.gif",
            format="GIF",
            save_all=True,
            append_images=sheets[1:],
            duration=max(20, round(100 * seconds) * 10),
            loop=0,
        )
    return len(chosen)


def read_key_frame(clips: KeyFrameClips, draw: Draw) -> tuple[Frames, KeyFrameEntry]:
    """The clip around a key frame, uint8 [T, H, W, 3], and what its list says."""
    result = read(clips.request(draw), clips.reading)
    return result.data[0], clips.entry(draw)


def drawn_clip(
    frames: Frames,
    entry: KeyFrameEntry,
    shares: NDArray[np.float64],
    scores: NDArray[np.float64],
    names: Mapping[int, str],
) -> list[Image.Image]:
    """Each frame of a clip, enlarged, with the boxes of its key frame and their best actions.

    Args:
        frames: uint8 [T, H, W, 3].
        entry: whose annotated boxes and actions are drawn too, thinner and below.
        shares: float64 [N, 4], boxes in shares of the width and height.
        scores: float64 [N, classes].
        names: of the actions that may be written, by number.
    """
    factor = max(1, -(-LEAST_SIDE // min(frames.shape[1:3])))
    height, width = (factor * side for side in frames.shape[1:3])
    font = ImageFont.load_default(12)
    truth = entry.truth()
    sheets = []
    for frame in frames:
        sheet = Image.fromarray(frame).resize((width, height), Image.Resampling.NEAREST)
        draw = ImageDraw.Draw(sheet)
        for box in np.unique(truth.boxes, axis=0):
            mine = truth.classes[(truth.boxes == box).all(1)].tolist()
            lines = [names[number] for number in mine if number in names]
            left, top, right, bottom = _pixels(box, width, height)
            draw.rectangle((left, top, right, bottom), outline=ANNOTATED, width=1)
            _write(draw, (left + 3, bottom - 3), lines, ANNOTATED, font, anchor="ld")
        for box, row in zip(shares, scores, strict=True):
            left, top, right, bottom = _pixels(box, width, height)
            draw.rectangle((left, top, right, bottom), outline=FOUND, width=3)
            _write(draw, (left + 3, top + 3), best_actions(row, names), FOUND, font, anchor="la")
        sheets.append(sheet)
    return sheets


def best_actions(scores: NDArray[np.float64], names: Mapping[int, str]) -> list[str]:
    """The best actions of a person that are worth writing, with their scores."""
    order = np.argsort(-scores, kind="stable")
    best = [(number + 1, scores[number]) for number in order.tolist() if number + 1 in names]
    return [f"{names[n]} {score:.2f}" for n, score in best[:ACTIONS] if score >= LEAST_SCORE]


def _pixels(box: NDArray[np.float64], width: int, height: int) -> tuple[int, int, int, int]:
    left, top, right, bottom = (box * [width, height, width, height]).round().astype(int).tolist()
    return left, top, max(left, right - 1), max(top, bottom - 1)


def _write(
    draw: ImageDraw.ImageDraw,
    at: tuple[int, int],
    lines: Sequence[str],
    colour: tuple[int, int, int],
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
    *,
    anchor: str,
) -> None:
    """Lines on a ground of a colour, upwards from `at` for an anchor at the descender."""
    step = 14
    for i, line in enumerate(lines):
        place = (at[0], at[1] + (step * i if anchor == "la" else -step * (len(lines) - 1 - i)))
        draw.rectangle(draw.textbbox(place, line, font, anchor=anchor), fill=colour)
        draw.text(place, line, INK, font, anchor=anchor)
