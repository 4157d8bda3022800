"""Names of the classes of a set: from a file, or those of Kinetics."""

from __future__ import annotations

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
        UsageError: no such file, an empty line, or two classes of one name.
    """
    if classes in KINETICS:
        return tuple(kinetics_names(KINETICS[classes]))
    path = Path(classes)
    try:
        text = path.read_text(encoding="utf-8", errors="surrogateescape")
    except OSError as error:
        raise UsageError(
            f"classes {classes}: can't be read ({error.strerror}): give a file with a class "
            f"name a line, or {', '.join(KINETICS)}"
        ) from None
    names = [line.removesuffix("\r") for line in text.removesuffix("\n").split("\n")]
    first: dict[str, int] = {}
    for number, name in enumerate(names, 1):
        if not name.strip():
            raise UsageError(f"{path}:{number}: is empty; each line names a class")
        if name in first:
            raise UsageError(f"{path}:{number}: {name!r} is the class of line {first[name]} too")
        first[name] = number
    return tuple(names)
