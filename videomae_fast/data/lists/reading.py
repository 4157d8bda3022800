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
  spaces or tabs. A path wholly in double quotes loses them, and ``""`` in it means ``"``, as in
  the official fine-tuning lists, which are read as CSV. So any file name without a line feed
  can be written, and :func:`list_line` does.
* Blank lines and lines whose first character is ``#`` are skipped, but counted in the line
  numbers of messages. A path that begins with ``#`` is written ``"#..."`` or ``./#...``.
* Lines end in ``\\n`` or ``\\r\\n``, or in ``\\r`` where the file has no ``\\n`` at all. Another
  ``\\r`` may stand in quotes only: elsewhere it is an error, since it may hide a line.
* The bytes of a path are kept; a UTF-8 byte-order mark is dropped. A file that begins with the
  mark of UTF-16 is decoded to UTF-8.
"""

from __future__ import annotations

import codecs
import os
import stat
import weakref
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from videomae_fast.data.errors import ListError
from videomae_fast.data.lists.columns import (
    QUOTE,
    holding_returns,
    lines,
    strip_right,
    take_integer,
)
from videomae_fast.recipes.source import ListFormat

EXPECTED: Final[dict[ListFormat, str]] = {
    "pretrain": "`path 0 -1` for a video or `folder start total` for a folder of frames",
    "labels": "`path label`",
    "folder-labels": "`folder total label`",
}
_FIELDS: Final[dict[str, int]] = {"pretrain": 2, "labels": 1, "folder-labels": 2}
# What a file is taken for that begins so; a path must not be.
_UTF16: Final = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_UTF32: Final = (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)
MARKS: Final = (codecs.BOM_UTF8, *_UTF16, *_UTF32)


@dataclass(frozen=True)
class Entry:
    """One line of a list.

    Attributes:
        path: as the list has it, without quotes.
        start: number of the folder's first image.
        total: images in the folder; -1 for a video.
        label: -1 where the format has none.
        line: counted from 1.
    """

    path: str
    start: int
    total: int
    label: int
    line: int

    @property
    def is_video(self) -> bool:
        """Whether the path is a video's, not a frame folder's."""
        return self.total < 0


@dataclass(frozen=True, eq=False)
class ClipList:
    """The entries of a list as columns over the file's bytes.

    28 bytes per line beside the text; no Python object per line, so processes that are forked share
    the pages.

    Attributes:
        file: the list.
        text: uint8 [file size] (of UTF-16, as UTF-8).
        path_start: int64 [n], where each path begins in the text.
        path_length: int32 [n], in bytes.
        start: int32 [n], as in :class:`Entry`.
        total: int32 [n], as in :class:`Entry`.
        label: int32 [n], as in :class:`Entry`.
        line: int32 [n], as in :class:`Entry`.
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
            raw = raw[1:-1].replace(b'""', b'"')
        return Entry(
            os.fsdecode(raw),
            int(self.start[index]),
            int(self.total[index]),
            int(self.label[index]),
            int(self.line[index]),
        )

    def place(self, index: int) -> str:
        """For messages: the list and the entry's line."""
        return f"{self.file}:{self.line[index]}"

    def select(self, keep: NDArray[np.bool_]) -> ClipList:
        """Some of the entries; the text is shared, not copied.

        Args:
            keep: bool [n].

        Returns:
            The entries where ``keep`` is true.
        """
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
        """Which paths contain some text, as the list has them.

        Args:
            part: of a path.

        Returns:
            bool [n].

        Raises:
            ValueError: the part is empty.
        """
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

    Args:
        file: of text, in one of the formats above.
        format: what a line holds.
        start: number of the first image for ``"folder-labels"``, which does not say it (official
            default: 1).

    Returns:
        Its entries. A list that is held already is not read again.

    Raises:
        ListError: names ``file:line``, what was found and what is expected; also for a file that is
            missing, no regular file (nothing waits for a pipe) or holds no entry.
    """
    file = Path(file)
    if format not in EXPECTED:
        raise ListError(f"{file}: list format {format!r} is not one of {', '.join(EXPECTED)}")
    try:
        status = file.stat()
        content = None
        if stat.S_ISREG(status.st_mode):
            key = (str(file.resolve()), format, start, status.st_mtime_ns, status.st_size)
            known = _loaded.get(key)
            if known is not None:
                return known
            content = file.read_bytes()
    except (OSError, ValueError) as error:  # a ValueError: a null byte in the name
        why = getattr(error, "strerror", None) or str(error)
        raise _unreadable(file, format, why) from error
    if content is None:
        raise _unreadable(file, format, f"it is {_kind(status.st_mode)}")
    parsed = _parse(file, np.frombuffer(_decoded(file, content), dtype=np.uint8), format, start)
    _loaded[key] = parsed
    return parsed


def _unreadable(file: Path, format: ListFormat, why: str) -> ListError:
    return ListError(
        f"{file}: the data list can't be read ({why}); expected a text file with lines "
        f"{EXPECTED[format]}"
    )


def _kind(mode: int) -> str:
    if stat.S_ISDIR(mode):
        return "a folder: videomae-fast list FOLDER > train.csv makes a list of its videos"
    return "a pipe" if stat.S_ISFIFO(mode) else "a device or a socket"


def _decoded(file: Path, content: bytes) -> bytes:
    """The file's bytes; of UTF-16, which some editors and shells write, as UTF-8."""
    if content.startswith(_UTF32):
        raise ListError(f"{file}: begins with the byte-order mark of UTF-32: save it as UTF-8")
    if not content.startswith(_UTF16):
        return content
    try:
        return content.decode("utf-16").encode("utf-8")
    except UnicodeError as error:
        raise ListError(
            f"{file}: begins with the byte-order mark of UTF-16 but is none ({error}): save it as "
            "UTF-8"
        ) from error


def _parse(file: Path, text: NDArray[np.uint8], format: ListFormat, start: int) -> ClipList:
    begin, end, number = lines(file, text)
    if not len(begin):
        raise ListError(f"{file}: the list has no entry; expected lines {EXPECTED[format]}")

    path_end = end.copy()
    fields: list[NDArray[np.int64]] = []
    valid = np.ones(len(begin), dtype=np.bool_)
    for _ in range(_FIELDS[format]):
        value, good = take_integer(text, begin, path_end)
        fields.insert(0, value)
        valid &= good
    strip_right(text, begin, path_end)
    length = path_end - begin
    valid &= length > 0
    quoted = length > 1
    quoted[quoted] = (text[begin[quoted]] == QUOTE) & (text[path_end[quoted] - 1] == QUOTE)
    valid &= ~quoted | (length > 2)
    valid[holding_returns(text, begin, end, np.where(quoted, path_end, begin))] = False

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


def _explain(file: Path, line: int, found: str, format: ListFormat, others: int) -> str:
    shown = found if len(found) <= 160 else found[:157] + "..."
    message = f"{file}:{line}: found {shown!r}; expected {EXPECTED[format]}"
    fields = found.rsplit(None, 2)
    numbers = [field.lstrip("-").isdigit() for field in fields]
    if "\0" in found:
        message += " (null bytes: if it was written as UTF-16, save it as UTF-8)"
    elif "\r" in found:
        message += " (a carriage return within the line: give all lines the same ends)"
    elif "," in found and not any(numbers):
        message += " (separated by spaces, not by commas)"
    elif format == "pretrain" and len(fields) >= 2 and numbers[-2:] == [False, True]:
        message += (
            '; a list of `path label` lines is read with format="labels" (pretrain: --data '
            "LIST,format=labels; other commands: --format labels)"
        )
    elif format == "pretrain" and len(fields) == 3 and numbers[1:] == [True, True]:
        message += " (total is -1 for a video, at least 1 for a folder; start is at least 0)"
    elif len(fields) == 1:
        message += ": the numbers after the path are missing"
    if others:
        message += f"; {others} more line{'s are' if others > 1 else ' is'} wrong"
    return message
