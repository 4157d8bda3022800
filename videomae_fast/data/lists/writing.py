"""Lines of data lists, as they are written."""

from __future__ import annotations

import os

from videomae_fast.data.errors import ListError
from videomae_fast.data.lists.columns import SPACES
from videomae_fast.data.lists.reading import MARKS, Entry
from videomae_fast.recipes.source import ListFormat


def list_line(entry: Entry, path: str, format: ListFormat) -> str:
    """The line, with its end, that says what an entry says, of a file.

    Read back, it gives the same path and numbers, whatever the path: one that would be read as
    something else is quoted, and in formats with labels one with white space, as the official code
    needs it. To be written with ``errors="surrogateescape"``, which keeps the path's bytes.

    Args:
        entry: its numbers are written.
        path: of the file, which takes the place of the entry's.
        format: of the list.

    Raises:
        ListError: an empty path, or one with a line feed, which no line can hold.
    """
    if not path or "\n" in path:
        raise ListError(f"{path!r}: a list has one path per line; rename this file or folder")
    raw = os.fsencode(path)
    spaced = format != "pretrain" and any(sign.isspace() for sign in path)
    if spaced or _misread(raw):
        path = '"' + path.replace('"', '""') + '"'
    if format == "pretrain":
        return f"{path} {entry.start} {entry.total}\n"
    if format == "labels":
        return f"{path} {entry.label}\n"
    return f"{path} {entry.total} {entry.label}\n"


def _misread(raw: bytes) -> bool:
    """Whether a path that is not quoted would be read as another one, or as none."""
    return (
        raw.startswith((b"#", *MARKS))
        or raw != raw.strip(SPACES)
        or b"\r" in raw
        or (len(raw) > 1 and raw[:1] == raw[-1:] == b'"')
    )
