"""Fields of JSON files, checked: what is wrong is told with file, place and remedy."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from videomae_fast.data.errors import ListError, cut
from videomae_fast.placed_json import PlacedList, placed_json

ImageId = int | str


def load_json(path: Path) -> Any:
    """What a JSON file holds, with the lines of its lists' parts.

    Raises:
        ListError: it can't be read.
    """
    try:
        return placed_json(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise ListError(f"{path}: can't be read as JSON: {error}") from error


class Record:
    """An object of a file.

    Args:
        values: its fields.
        place: file, line where the object begins, and place, for errors.
        line: that line, from 1; 0 where the file has none.
    """

    def __init__(self, values: Mapping[str, Any], place: str, line: int = 0) -> None:
        self.values, self.place, self.line = values, place, line

    def wrong(self, field: str, what: str) -> ListError:
        """The error of a field."""
        if field not in self.values:
            return ListError(f"{self.place}: {field} is missing: {what}")
        told = cut(json.dumps(self.values[field]), 60)
        return ListError(f"{self.place}: {field} is {told}: {what}")

    def identity(self, field: str) -> ImageId:
        """An integer or a text."""
        value = self.values.get(field)
        if isinstance(value, bool) or not isinstance(value, int | str) or value == "":
            raise self.wrong(field, "it must be an integer or a text")
        return value

    def text(self, field: str) -> str:
        """A text that is not empty."""
        value = self.values.get(field)
        if not isinstance(value, str) or not value:
            raise self.wrong(field, "it must be a text that is not empty")
        return value

    def whole(self, field: str, least: int) -> int:
        """An integer, as a number or in digits."""
        value = self.values.get(field)
        if isinstance(value, str) and len(value) < 10 and value.isascii() and value.isdigit():
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value < 2**31:
            raise self.wrong(field, f"it must be a whole number, at least {least}, below 2**31")
        return value

    def box(self, field: str) -> tuple[float, float, float, float]:
        """x, y, width, height."""
        value = self.values.get(field)
        if not isinstance(value, list) or len(value) != 4 or not all(map(_is_finite, value)):
            raise self.wrong(field, "it must be [x, y, width, height], finite numbers in pixels")
        x, y, width, height = map(float, value)
        return x, y, width, height

    def share(self, field: str) -> float:
        """A number in 0..1."""
        value: Any = self.values.get(field)
        if not _is_finite(value) or not 0 <= value <= 1:
            raise self.wrong(field, "it must be a number, 0 to 1")
        return float(value)


def records(path: Path, name: str, values: Any) -> Iterator[Record]:
    """The objects of a list.

    Args:
        path: of the file.
        name: of the list in it; "" where the file is the list.
        values: the list; with lines, if errors are to name them.

    Raises:
        ListError: no list, or something else than an object in it.
    """
    if not isinstance(values, list):
        raise ListError(f"{path}: {name or 'the file'} must be a list of objects")
    lines = values.lines if isinstance(values, PlacedList) else None
    for number, value in enumerate(values):
        line = 0 if lines is None else lines[number]
        place = f"{path}:{line}: {name}[{number}]" if line else f"{path}: {name}[{number}]"
        if not isinstance(value, dict):
            raise ListError(f"{place} must be an object {{...}}")
        yield Record(value, place, line)


def _is_finite(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:
        return False
