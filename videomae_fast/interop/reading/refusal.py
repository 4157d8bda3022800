"""The one net: whatever goes wrong with a file's bytes becomes one sentence that names the file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from videomae_fast.errors import WeightsError

AGAIN: Final = "it is damaged or not whole: copy or download it again"
_MOST: Final = 200


@contextmanager
def refused(path: str | Path, what: str, remedy: str = AGAIN) -> Iterator[None]:
    """Turns any error but a WeightsError into one: ``PATH: WHAT (the error); REMEDY``.

    Around code that takes foreign bytes apart and nothing else: there every error, whatever its
    class, says something about the file.

    Args:
        path: that messages begin with.
        what: what the file is not, or what can't be done with it.
        remedy: what to do.

    Raises:
        WeightsError: something went wrong inside.
    """
    try:
        yield
    except WeightsError:
        raise
    except Exception as error:
        raise WeightsError(f"{path}: {what} ({_said(error)}); {remedy}") from error


def _said(error: Exception) -> str:
    """The first line of what an error says."""
    if isinstance(error, MemoryError):
        return "not enough memory"
    if isinstance(error, RecursionError):
        return "nested too deeply"
    lines = [line for line in str(error).splitlines() if line.strip()]
    said = lines[0].strip() if lines else type(error).__name__
    if isinstance(error, KeyError):
        said = f"no {said}"
    return said if len(said) <= _MOST else f"{said[:_MOST]} …"
