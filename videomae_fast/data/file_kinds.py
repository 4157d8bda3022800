"""Files that are none: opening a pipe waits for its writer, and a device may never end."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from videomae_fast.data.errors import DecodeError

_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe (FIFO)",
    stat.S_IFCHR: "a character device",
    stat.S_IFBLK: "a block device",
    stat.S_IFSOCK: "a socket",
}


def file_kind(mode: int) -> str:
    """What ``st_mode`` says that something is, for a sentence."""
    return _KINDS.get(stat.S_IFMT(mode), "a file")


def check_regular(path: Path) -> os.stat_result:
    """The status of what ``path`` leads to, before it is opened.

    Raises :class:`DecodeError` where that is a pipe, a device or a socket, and ``OSError`` where
    there is nothing. Folders are let through.
    """
    status = os.stat(path)
    if not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)):
        raise DecodeError(f"is {file_kind(status.st_mode)}, not a file")
    return status
