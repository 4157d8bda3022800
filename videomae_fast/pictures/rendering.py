"""A reconstruction as a picture (rows × frames) and as an animation (panels side by side)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from einops import repeat
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from videomae_fast.pictures.reconstruction import Clip, Reconstruction

PAPER, INK, FAINT = (255, 255, 255), (24, 24, 27), (113, 113, 122)
MARGIN, GAP = 24, 4
FRAME_SIDE, PANEL_SIDE = 120, 256  # small frames are enlarged to about this many pixels


@dataclass(frozen=True)
class Row:
    """One row of the picture, one panel of the animation."""

    title: str
    note: str
    clip: Clip


def rows_of(result: Reconstruction, before: Reconstruction | None = None) -> list[Row]:
    """Original, masked input, and the reconstructions, with what has to be said about each.

    Args:
        result: of a trained model.
        before: of the same clip and mask, of the model before it was trained.
    """
    share = f"{result.hidden_share:.0%} hidden"
    rows = [Row("original", "", result.original), Row("masked input", share, result.masked)]
    if before is not None:
        given = before.with_statistics is not None
        note = (
            "the same, given the truth's\nmean and deviation of each\nhidden cube" if given else ""
        )
        clip = (
            before.without_statistics if before.with_statistics is None else before.with_statistics
        )
        rows.append(Row("before training", note, clip))
    if result.with_statistics is None:
        rows.append(Row("reconstruction", "predicts plain pixels", result.without_statistics))
        return rows
    rows.append(
        Row(
            "reconstruction",
            "without the truth's statistics:\nbrightness and contrast\nguessed from visible cubes",
            result.without_statistics,
        )
    )
    rows.append(
        Row(
            "reconstruction",
            "with the truth's statistics:\nmean and deviation of each\nhidden cube are given",
            result.with_statistics,
        )
    )
    return rows


def picture(
    result: Reconstruction,
    *,
    title: str,
    note: str = "",
    columns: int = 8,
    before: Reconstruction | None = None,
) -> Image.Image:
    """The rows of :func:`rows_of` × at most `columns` frames, evenly spread over the clip.

    Args:
        title: heading, in bold.
        note: the line under it.
        before: as :func:`rows_of`.
    """
    rows = rows_of(result, before)
    count = len(result.original)
    chosen = np.unique(np.linspace(0, count - 1, min(columns, count)).round().astype(int))
    factor = _enlargement(result.original, FRAME_SIDE)
    height, width = (n * factor for n in result.original.shape[1:3])
    heading, side = 78 if note else 58, 214
    full_width = side + len(chosen) * (width + GAP) - GAP + 2 * MARGIN
    full_height = heading + len(rows) * (height + 2 * GAP) + 22 + MARGIN
    sheet = Image.new("RGB", (full_width, full_height), PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.text((MARGIN, 20), title, INK, _font(20, bold=True))
    if note:
        draw.text((MARGIN, 48), note, FAINT, _font(13))
    left = MARGIN + side
    for r, row in enumerate(rows):
        top = heading + r * (height + 2 * GAP)
        _label(draw, (MARGIN, top + height // 2), row)
        for c, n in enumerate(chosen):
            frame = _enlarged(row.clip[n], factor)
            sheet.paste(Image.fromarray(frame), (left + c * (width + GAP), top))
    bottom = heading + len(rows) * (height + 2 * GAP)
    for c, n in enumerate(chosen):
        middle = left + c * (width + GAP) + width // 2
        draw.text((middle, bottom + 2), f"frame {n}", FAINT, _font(12), anchor="ma")
    return sheet


def save_animation(
    path: Path,
    result: Reconstruction,
    *,
    frame_seconds: float,
    before: Reconstruction | None = None,
) -> None:
    """Writes a GIF that loops: one panel per row of :func:`rows_of`, side by side.

    Args:
        frame_seconds: how long each frame stays; a GIF knows hundredths of a second.
        before: as :func:`rows_of`.
    """
    rows = rows_of(result, before)
    factor = _enlargement(result.original, PANEL_SIDE)
    height, width = (n * factor for n in result.original.shape[1:3])
    heading = 72
    size = (len(rows) * (width + 2 * GAP) + 2 * GAP, heading + height + 2 * GAP)
    sheets = []
    for n in range(len(result.original)):
        sheet = Image.new("RGB", size, PAPER)
        draw = ImageDraw.Draw(sheet)
        for c, row in enumerate(rows):
            left = 2 * GAP + c * (width + 2 * GAP)
            draw.text((left, 6), row.title, INK, _font(14, bold=True))
            draw.multiline_text((left, 25), row.note, FAINT, _font(11), spacing=2)
            sheet.paste(Image.fromarray(_enlarged(row.clip[n], factor)), (left, heading))
        sheets.append(sheet)
    # One palette for all frames, or still parts of the picture would flicker.
    strip = Image.new("RGB", (size[0], size[1] * len(sheets)))
    for n, sheet in enumerate(sheets):
        strip.paste(sheet, (0, n * size[1]))
    palette = strip.quantize(256, method=Image.Quantize.MEDIANCUT)
    frames = [sheet.quantize(palette=palette) for sheet in sheets]
    frames[0].save(
        path,
        format="GIF",
        save_all=True,
        append_images=frames[1:],
        duration=max(20, round(100 * frame_seconds) * 10),
        loop=0,
    )


def _label(draw: ImageDraw.ImageDraw, at: tuple[int, int], row: Row) -> None:
    """The row's title and note, centred on `at` in height."""
    lines = row.note.count("\n") + 1 if row.note else 0
    x, y = at
    y -= (20 + 16 * lines) // 2
    draw.text((x, y), row.title, INK, _font(15, bold=True))
    if row.note:
        draw.multiline_text((x, y + 21), row.note, FAINT, _font(12), spacing=3)


def _enlargement(clip: Clip, side: int) -> int:
    """The whole factor that brings the longer side of small frames closest to `side` pixels."""
    return max(1, round(side / max(int(clip.shape[1]), int(clip.shape[2]))))


def _enlarged(frame: NDArray[np.uint8], factor: int) -> NDArray[np.uint8]:
    """Pixels repeated: nothing is smoothed that the model did not make smooth."""
    found: NDArray[np.uint8] = repeat(frame, "h w c -> (h y) (w x) c", y=factor, x=factor)
    return found


@cache
def _font(size: int, *, bold: bool = False) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which matplotlib brings along."""
    import matplotlib

    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / name, size)
