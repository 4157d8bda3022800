"""Text files that are whole or not there."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from videomae_fast.data.errors import OutputError


def write_lines(path: Path, lines: Iterable[str]) -> None:
    """Writes lines (with their ends) under another name, syncs and renames; paths keep their bytes.

    Raises :class:`OutputError` where the file can't be written.
    """
    partial = path.with_name(path.name + ".partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with partial.open(
                "w", encoding="utf-8", errors="surrogateescape", newline="\n"
            ) as file:
                file.writelines(lines)
                file.flush()
                os.fsync(file.fileno())
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(f"{path}: can't be written: {error.strerror or error}") from error
