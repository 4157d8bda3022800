"""Columns of a list, for all lines at once: where entries lie, and the numbers at their ends.

All functions take the file's bytes as ``text``, uint8 [file size], and spans of them as ``begin``
and ``end``, int64 [n].
"""

from __future__ import annotations

import codecs
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from videomae_fast.data.errors import ListError

QUOTE: Final = ord('"')
SPACES: Final = b"\t\v\f\r "
_LF, _CR = ord("\n"), ord("\r")
_INT32_MAX: Final = 2**31 - 1
_MAX_DIGITS: Final = 10
_IS_SPACE: Final = np.zeros(256, dtype=np.bool_)
_IS_SPACE[list(SPACES)] = True
_IS_DIGIT: Final = np.zeros(256, dtype=np.bool_)
_IS_DIGIT[48:58] = True


def lines(
    file: Path, text: NDArray[np.uint8]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Where the entries of a list are: neither blank lines nor comments.

    Args:
        file: for messages.
        text: uint8 [file size].

    Returns:
        Begin and end, int64 [n], with white space stripped, and line numbers, int64 [n], from 1.

    Raises:
        ListError: a carriage return within a comment.
    """
    breaks = np.flatnonzero(text == _LF)
    if not len(breaks):
        breaks = np.flatnonzero(text == _CR)
    begin = np.concatenate([np.zeros(1, np.int64), breaks + 1])
    end = np.concatenate([breaks, np.array([len(text)], np.int64)])
    if text[:3].tobytes() == codecs.BOM_UTF8:
        begin[0] = 3
    comment = np.zeros(len(begin), dtype=np.bool_)
    filled = begin < end
    comment[filled] = text[begin[filled]] == ord("#")
    strip_right(text, begin, end)
    _strip_left(text, begin, end)
    rows = np.flatnonzero(comment)
    wrong = holding_returns(text, begin[rows], end[rows], begin[rows])
    if len(wrong):
        raise ListError(
            f"{file}:{rows[wrong[0]] + 1}: found a carriage return within a comment, which may "
            "hide an entry: give all lines of the file the same ends"
        )
    keep = np.flatnonzero(~comment & (begin < end))
    return begin[keep], end[keep], keep + 1


def holding_returns(
    text: NDArray[np.uint8],
    begin: NDArray[np.int64],
    end: NDArray[np.int64],
    first: NDArray[np.int64],
) -> NDArray[np.int64]:
    """Which spans of a file without overlap hold a carriage return.

    Args:
        text: uint8 [file size].
        begin, end: int64 [n], the spans.
        first: int64 [n], where carriage returns begin to count in each.

    Returns:
        Indices of spans, int64.
    """
    if not len(begin):
        return np.zeros(0, dtype=np.int64)
    places = np.flatnonzero(text == _CR)
    rows = np.searchsorted(begin, places, side="right") - 1
    held = (rows >= 0) & (places < end[rows]) & (places >= first[rows])
    return np.unique(rows[held])


def strip_right(text: NDArray[np.uint8], begin: NDArray[np.int64], end: NDArray[np.int64]) -> None:
    """Moves ``end`` (int64 [n], in place) before the white space at each span's right."""
    rows = np.arange(len(end))
    while True:
        rows = rows[end[rows] > begin[rows]]
        rows = rows[_IS_SPACE[text[end[rows] - 1]]]
        if not len(rows):
            return
        end[rows] -= 1


def _strip_left(text: NDArray[np.uint8], begin: NDArray[np.int64], end: NDArray[np.int64]) -> None:
    """Moves ``begin`` (int64 [n], in place) past the white space at each span's left."""
    rows = np.arange(len(begin))
    while True:
        rows = rows[begin[rows] < end[rows]]
        rows = rows[_IS_SPACE[text[begin[rows]]]]
        if not len(rows):
            return
        begin[rows] += 1


def take_integer(
    text: NDArray[np.uint8], begin: NDArray[np.int64], end: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Takes the integer field at each span's right end.

    Args:
        text: uint8 [file size].
        begin, end: int64 [n], the spans; ``end`` moves before the field, in place.

    Returns:
        The values, int64 [n], and whether there was a separate integer of 32 bits, bool [n].
    """
    strip_right(text, begin, end)
    value = np.zeros(len(end), dtype=np.int64)
    digits = np.zeros(len(end), dtype=np.int64)
    rows = np.arange(len(end))
    for power in range(_MAX_DIGITS):
        rows = rows[end[rows] > begin[rows]]
        rows = rows[_IS_DIGIT[text[end[rows] - 1]]]
        if not len(rows):
            break
        value[rows] += (text[end[rows] - 1].astype(np.int64) - 48) * 10**power
        digits[rows] += 1
        end[rows] -= 1

    rows = np.flatnonzero((digits > 0) & (end > begin))
    rows = rows[text[end[rows] - 1] == ord("-")]
    value[rows] = -value[rows]
    end[rows] -= 1

    good = (digits > 0) & (np.abs(value) <= _INT32_MAX)
    rows = np.flatnonzero(good & (end > begin))
    good[rows] = _IS_SPACE[text[end[rows] - 1]]
    return value, good
