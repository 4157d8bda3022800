"""Data lists: the official text formats, a million lines in seconds and a few bytes each.

Formats (space-separated, one entry per line):

* ``"pretrain"``: ``path 0 -1`` (a video) or ``folder start total`` (images ``start`` to
  ``start + total - 1``); a negative total marks a video, whose start is ignored.
* ``"labels"``: ``path label`` (fine-tuning on videos).
* ``"folder-labels"``: ``folder total label`` (fine-tuning on frame folders).

Source: VideoMAE V2, ``docs/DATASET.md`` and ``dataset/pretrain_datasets.py``.

Rules:

* The numbers are read from the right end of the line; the path is everything to their left,
  so **a path may contain spaces** (not at its ends). Fields are separated by any number of
  spaces or tabs. A path wholly in double quotes loses them, as in the official fine-tuning
  lists, which are read as CSV.
* Blank lines and lines whose first character is ``#`` are skipped, but counted in the line
  numbers of messages. A path that begins with ``#`` is written ``./#...``.
* ``\\r\\n`` line ends and a UTF-8 byte-order mark are accepted; the bytes of a path are kept.
"""

from __future__ import annotations

import os
import weakref
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from videomae_fast.data.errors import ListError

ListFormat = Literal["pretrain", "labels", "folder-labels"]

EXPECTED: Final[dict[str, str]] = {
    "pretrain": "`path 0 -1` for a video or `folder start total` for a folder of frames",
    "labels": "`path label`",
    "folder-labels": "`folder total label`",
}
_FIELDS: Final[dict[str, int]] = {"pretrain": 2, "labels": 1, "folder-labels": 2}
_INT32_MAX: Final = 2**31 - 1
_MAX_DIGITS: Final = 10

_IS_SPACE: Final = np.zeros(256, dtype=np.bool_)
_IS_SPACE[[9, 11, 12, 13, 32]] = True
_IS_DIGIT: Final = np.zeros(256, dtype=np.bool_)
_IS_DIGIT[48:58] = True


@dataclass(frozen=True)
class Entry:
    """One line of a list.

    ``total`` is -1 for a video, else the number of images in the folder; ``start`` is the
    number of its first image; ``label`` is -1 where the format has none; ``line`` counts
    from 1.
    """

    path: str
    start: int
    total: int
    label: int
    line: int

    @property
    def is_video(self) -> bool:
        return self.total < 0


@dataclass(frozen=True, eq=False)
class ClipList:
    """The entries of a list as columns over the file's bytes.

    ``text`` uint8 [file size]; ``path_start`` int64 [n] and ``path_length`` int32 [n] say where
    each path lies in it; ``start``, ``total``, ``label``, ``line`` int32 [n] as in
    :class:`Entry`. 28 bytes per line beside the text; no Python object per line, so processes
    that are forked share the pages.
    """

    file: Path
    text: NDArray[np.uint8]
    path_start: NDArray[np.int64]
    path_length: NDArray[np.int32]
    start: NDArray[np.int32]
    total: NDArray[np.int32]
    label: NDArray[np.int32]
    line: NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.path_start)

    def __getitem__(self, index: int) -> Entry:
        if not 0 <= index < len(self):
            raise IndexError(f"entry {index} of {self.file}, which has {len(self)}")
        first = int(self.path_start[index])
        raw = self.text[first : first + int(self.path_length[index])].tobytes()
        if len(raw) > 1 and raw[:1] == raw[-1:] == b'"':
            raw = raw[1:-1]
        return Entry(
            os.fsdecode(raw),
            int(self.start[index]),
            int(self.total[index]),
            int(self.label[index]),
            int(self.line[index]),
        )

    def select(self, keep: NDArray[np.bool_]) -> ClipList:
        """The entries where ``keep`` (bool [n]) is true; the text is shared, not copied."""
        return ClipList(
            self.file,
            self.text,
            self.path_start[keep],
            self.path_length[keep],
            self.start[keep],
            self.total[keep],
            self.label[keep],
            self.line[keep],
        )

    def containing(self, part: str) -> NDArray[np.bool_]:
        """bool [n]: whether the path, as the list has it, contains ``part``."""
        found = np.zeros(len(self), dtype=np.bool_)
        needle = os.fsencode(part)
        if not needle or not len(self):
            raise ValueError("the part of a path to look for must not be empty")
        text = self.text.tobytes()
        at = text.find(needle)
        while at >= 0:
            # The last path that begins at or before the hit is the only one that can hold it.
            index = int(np.searchsorted(self.path_start, at, side="right")) - 1
            end = int(self.path_start[index] + self.path_length[index])
            if index >= 0 and at + len(needle) <= end:
                found[index] = True
                at = text.find(needle, end)
            else:
                at = text.find(needle, at + 1)
        return found


# Several sources often share one file (the hybrid list): it is parsed and held once.
_loaded: weakref.WeakValueDictionary[tuple[str, str, int, int, int], ClipList] = (
    weakref.WeakValueDictionary()
)


def load_list(file: str | Path, format: ListFormat = "pretrain", *, start: int = 1) -> ClipList:
    """Reads a data list.

    ``start`` is the number of the first image for ``"folder-labels"``, which does not say it
    (official default: 1).

    Raises :class:`ListError` naming ``file:line``, what was found and what is expected; also
    for a file that is missing or holds no entry.
    """
    file = Path(file)
    if format not in EXPECTED:
        raise ListError(f"{file}: list format {format!r} is not one of {', '.join(EXPECTED)}")
    try:
        status = file.stat()
        key = (str(file.resolve()), format, start, status.st_mtime_ns, status.st_size)
        known = _loaded.get(key)
        if known is not None:
            return known
        text = np.frombuffer(file.read_bytes(), dtype=np.uint8)
    except OSError as error:
        raise ListError(
            f"{file}: the data list can't be read ({error.strerror}); "
            f"expected a text file with lines {EXPECTED[format]}"
        ) from error
    parsed = _parse(file, text, format, start)
    _loaded[key] = parsed
    return parsed


def list_line(entry: Entry, path: str, format: ListFormat) -> str:
    """The line, with its end, that says what ``entry`` says of the file ``path``.

    In formats with labels a path with white space is quoted, as the official code needs it.
    """
    if format == "pretrain":
        return f"{path} {entry.start if not entry.is_video else 0} {entry.total}\n"
    quoted = f'"{path}"' if any(sign.isspace() for sign in path) else path
    if format == "labels":
        return f"{quoted} {entry.label}\n"
    return f"{quoted} {entry.total} {entry.label}\n"


def _parse(file: Path, text: NDArray[np.uint8], format: ListFormat, start: int) -> ClipList:
    begin, end, number = _lines(text)
    if not len(begin):
        raise ListError(f"{file}: the list has no entry; expected lines {EXPECTED[format]}")

    path_end = end.copy()
    fields: list[NDArray[np.int64]] = []
    valid = np.ones(len(begin), dtype=np.bool_)
    for _ in range(_FIELDS[format]):
        value, good = _take_integer(text, begin, path_end)
        fields.insert(0, value)
        valid &= good
    _strip_right(text, begin, path_end)
    valid &= path_end > begin

    unlabelled = np.full(len(begin), -1, dtype=np.int64)
    if format == "pretrain":
        first, total = fields
        label = unlabelled
        valid &= (total != 0) & ((total < 0) | (first >= 0))
        total = np.maximum(total, -1)
    elif format == "labels":
        (label,) = fields
        first, total = np.zeros_like(unlabelled), unlabelled
        valid &= label >= 0
    else:
        total, label = fields
        first = np.full(len(begin), start, dtype=np.int64)
        valid &= (total > 0) & (label >= 0)

    if not valid.all():
        wrong = np.flatnonzero(~valid)
        row = int(wrong[0])
        found = os.fsdecode(text[begin[row] : end[row]].tobytes())
        raise ListError(_explain(file, int(number[row]), found, format, len(wrong) - 1))
    return ClipList(
        file,
        text,
        begin,
        (path_end - begin).astype(np.int32),
        first.astype(np.int32),
        total.astype(np.int32),
        label.astype(np.int32),
        number.astype(np.int32),
    )


def _lines(
    text: NDArray[np.uint8],
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Where the entries begin and end (int64 [n], white space stripped) and their line numbers."""
    breaks = np.flatnonzero(text == 10)
    begin = np.concatenate([np.zeros(1, np.int64), breaks + 1])
    end = np.concatenate([breaks, np.array([len(text)], np.int64)])
    if text[:3].tobytes() == b"\xef\xbb\xbf":
        begin[0] = 3
    comment = np.zeros(len(begin), dtype=np.bool_)
    filled = begin < end
    comment[filled] = text[begin[filled]] == ord("#")
    _strip_right(text, begin, end)
    _strip_left(text, begin, end)
    keep = np.flatnonzero(~comment & (begin < end))
    return begin[keep], end[keep], keep + 1


def _strip_right(text: NDArray[np.uint8], begin: NDArray[np.int64], end: NDArray[np.int64]) -> None:
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


def _take_integer(
    text: NDArray[np.uint8], begin: NDArray[np.int64], end: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Takes the integer field at each span's right end, moving ``end`` (in place) before it.

    Returns the values int64 [n] and whether there was a separate integer of 32 bits, bool [n].
    """
    _strip_right(text, begin, end)
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


def _explain(file: Path, line: int, found: str, format: ListFormat, others: int) -> str:
    shown = found if len(found) <= 160 else found[:157] + "..."
    message = f"{file}:{line}: found {shown!r}; expected {EXPECTED[format]}"
    fields = found.rsplit(None, 2)
    numbers = [field.lstrip("-").isdigit() for field in fields]
    if "," in found and not any(numbers):
        message += " (separated by spaces, not by commas)"
    elif format == "pretrain" and len(fields) >= 2 and numbers[-2:] == [False, True]:
        message += '; a list of `path label` lines is read with format="labels"'
    elif format == "pretrain" and len(fields) == 3 and numbers[1:] == [True, True]:
        message += " (total is -1 for a video, at least 1 for a folder; start is at least 0)"
    elif len(fields) == 1:
        message += ": the numbers after the path are missing"
    if others:
        message += f"; {others} more line{'s are' if others > 1 else ' is'} wrong"
    return message
