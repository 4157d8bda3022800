"""JSON that knows the lines of its parts: those of the lists and objects that users write.

The standard library's decoder reads each part by itself, so what is known costs next to nothing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any

_SPACE = re.compile(r"[ \t\n\r]*")
_DECODER = json.JSONDecoder()


class PlacedList(list[Any]):
    """A list of a file; `lines`: where each part begins, from 1."""

    def __init__(self, parts: Iterable[Any], lines: list[int]) -> None:
        super().__init__(parts)
        self.lines = lines


class PlacedObject(dict[str, Any]):
    """The object that a file is; `lines`: of each name, from 1."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: dict[str, int] = {}


def placed_json(content: bytes) -> Any:
    """What ``json.loads`` gives, but that a file's own list, its own object, and lists that are
    values of that are :class:`PlacedList` and :class:`PlacedObject`.

    Args:
        content: of a file.

    Raises:
        ValueError, RecursionError: as ``json.loads`` does.
    """
    text = content.decode(json.detect_encoding(content), "surrogatepass")
    try:
        return _Reader(text).read()
    except (ValueError, IndexError):
        json.loads(text)  # says what is wrong
        raise


class _Reader:
    def __init__(self, text: str) -> None:
        self._text, self._at = text, 0
        self._counted, self._line = 0, 1

    def read(self) -> Any:
        value = self._object() if self._next() == "{" else self._value()
        self._skip()
        if self._at < len(self._text):
            raise ValueError("more than one value")
        return value

    def _skip(self) -> None:
        found = _SPACE.match(self._text, self._at)
        assert found is not None  # an empty match is one
        self._at = found.end()

    def _next(self) -> str:
        """The character behind white space; IndexError at the end."""
        self._skip()
        return self._text[self._at]

    def _take(self, wanted: str) -> str:
        """Moves behind one of these characters."""
        found = self._next()
        if found not in wanted:
            raise ValueError(f"{found!r} in place of one of {wanted!r}")
        self._at += 1
        return found

    def _here(self) -> int:
        """The line, from 1."""
        self._line += self._text.count("\n", self._counted, self._at)
        self._counted = self._at
        return self._line

    def _part(self) -> Any:
        value, self._at = _DECODER.raw_decode(self._text, self._at)
        return value

    def _value(self) -> Any:
        return self._list() if self._next() == "[" else self._part()

    def _list(self) -> PlacedList:
        parts, lines = list[Any](), list[int]()
        self._take("[")
        if self._next() == "]":
            self._at += 1
            return PlacedList(parts, lines)
        while True:
            self._skip()
            lines.append(self._here())
            parts.append(self._part())
            if self._take(",]") == "]":
                return PlacedList(parts, lines)

    def _object(self) -> PlacedObject:
        found = PlacedObject()
        self._take("{")
        if self._next() == "}":
            self._at += 1
            return found
        while True:
            if self._next() != '"':
                raise ValueError("a name must be a text")
            line, name = self._here(), self._part()
            self._take(":")
            found[name] = self._value()
            found.lines[name] = line
            if self._take(",}") == "}":
                return found
