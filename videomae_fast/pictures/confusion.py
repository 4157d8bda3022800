"""Which class is taken for which, as a picture: a row per class, a column per prediction."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

SIDE, MARGIN, LABELLED = 640, 8, 40
"""Pixels of the square, around it, and the most classes whose names are written."""
_DARK = np.array((20.0, 60.0, 120.0))


def confusion_picture(table: NDArray[np.int64], names: Sequence[str]) -> Image.Image:
    """A cell is the darker, the larger the share of its row's videos that it has.

    Args:
        table: int64 [classes, classes], how often each class (row) is taken for each (column).
        names: of the classes, by label.

    Raises:
        ValueError: no square table, or another number of names.
    """
    classes = len(table)
    if table.shape != (classes, classes) or len(names) != classes or not classes:
        raise ValueError(f"{list(table.shape)} counts and {len(names)} names are no confusion")
    share = table / np.maximum(table.sum(1, keepdims=True), 1)
    cell = max(1, SIDE // classes)
    colours = 255 + share[..., None] * (_DARK - 255)
    square = np.repeat(np.repeat(colours.round().astype(np.uint8), cell, 0), cell, 1)
    font = ImageFont.load_default(max(8, min(14, cell - 2)))
    written = classes <= LABELLED
    left = MARGIN
    if written:
        left += max(int(font.getlength(name)) for name in names) + MARGIN
    image = Image.new("RGB", (left + square.shape[1] + MARGIN, square.shape[0] + 3 * MARGIN + 14))
    image.paste((255, 255, 255), (0, 0, *image.size))
    image.paste(Image.fromarray(square), (left, MARGIN))
    draw = ImageDraw.Draw(image)
    edge = (left, MARGIN, left + square.shape[1] - 1, MARGIN + square.shape[0] - 1)
    draw.rectangle(edge, outline=(113, 113, 122))
    if written:
        for row, name in enumerate(names):
            middle = MARGIN + row * cell + cell // 2
            draw.text((left - MARGIN, middle), name, (24, 24, 27), font, anchor="rm")
    told = "rows: label, columns: prediction in the same order, darker: more of the row's videos"
    draw.text((MARGIN, edge[3] + MARGIN), told, (113, 113, 122), ImageFont.load_default(11))
    return image


def save_confusion(path: Path, table: NDArray[np.int64], names: Sequence[str]) -> Path:
    """Writes :func:`confusion_picture` as a PNG, whole or not at all.

    Raises:
        ValueError: as there.
    """
    partial = path.with_name(f".partial-{path.name}")
    confusion_picture(table, names).save(partial, format="PNG")
    partial.replace(path)
    return path
