"""The package's own errors: what a user can act on, as opposed to a bug in the package."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class VideoMAEFastError(Exception):
    """Base of every error that the package raises on purpose for a user to act on."""

    @property
    def exit_code(self) -> int:
        """What a command that ends with this error exits with."""
        return 1


class BackendUnavailableError(VideoMAEFastError, RuntimeError):
    """A backend was asked for by name and can't run here; the message says why."""


class WeightsError(VideoMAEFastError, ValueError):
    """A weights file can't be read, or does not fit the model."""


class CheckpointError(VideoMAEFastError):
    """A checkpoint of a run can't be written, or read, or belongs to another run."""


class AccelerationError(VideoMAEFastError, ValueError):
    """A model of other code can't be accelerated, or not undone; the message says why."""


class DerivativeError(VideoMAEFastError, RuntimeError):
    """A derivative was asked for that this library's ops don't have."""


class UsageError(VideoMAEFastError, ValueError):
    """A command line or a config asks for what can't be; the message says what to do instead."""

    @property
    def exit_code(self) -> int:
        return 2


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """ "; did you mean X?" for a word that is close to a known one, else ""."""
    close = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean {close[0]}?" if close else ""
