"""Names of the classes of a set: from a file, or those of Kinetics."""

from __future__ import annotations

import codecs
from pathlib import Path
from typing import Final

from videomae_fast.data.labels.kinetics import SETS, kinetics_names
from videomae_fast.errors import UsageError

KINETICS: Final = {f"kinetics-{classes}": classes for classes in SETS}
"""What stands for the names of one of Kinetics' sets."""


def class_names(classes: str) -> tuple[str, ...]:
    """Names of classes, by label.

    Args:
        classes: a file with a name a line, or one of :data:`KINETICS`.

    Raises:
        UsageError: no such file, no text, an empty line, or two classes of one name.
    """
    if classes in KINETICS:
        return tuple(kinetics_names(KINETICS[classes]))
    try:
        return names_in(Path(classes))
    except OSError as error:
        raise UsageError(
            f"classes {classes}: can't be read ({error.strerror}): give a file with a class "
            f"name a line, or {', '.join(KINETICS)}"
        ) from None


def names_in(path: Path) -> tuple[str, ...]:
    """Names of classes, by label, of a file with one a line.

    Raises:
        OSError: it can't be read.
        UsageError: no text, an empty line, or two classes of one name.
    """
    try:
        with path.open("rb") as file:
            utf16 = file.read(2) in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
        text = (
            path.read_text(encoding="utf-16")
            if utf16  # as some editors and shells write
            else path.read_text(encoding="utf-8-sig", errors="surrogateescape")
        )
    except UnicodeError as error:
        raise UsageError(
            f"{path}: begins with the byte-order mark of UTF-16 but is none ({error}): save it as "
            "UTF-8"
        ) from None
    names = [line.removesuffix("\r") for line in text.removesuffix("\n").split("\n")]
    first: dict[str, int] = {}
    for number, name in enumerate(names, 1):
        if not name.strip():
            raise UsageError(f"{path}:{number}: is empty; each line names a class")
        if "\0" in name:
            raise UsageError(f"{path}:{number}: has null bytes, so it is no text: save it as UTF-8")
        if name in first:
            raise UsageError(f"{path}:{number}: {name!r} is the class of line {first[name]} too")
        first[name] = number
    return tuple(names)
