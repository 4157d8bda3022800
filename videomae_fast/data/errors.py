"""What can go wrong with data, as errors that name the file and the remedy."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from videomae_fast.errors import VideoMAEFastError

MISSING: Final = ("no such file", "no such folder")
"""Reasons of a :class:`DecodeError` for what is not there."""

_LONGEST: Final = 300
_FRAMES: Final = 20


def sentence(error: BaseException) -> str:
    """What an error says; of one that is not this library's, with its class in front, cut short,
    and as one line that any file can hold.
    """
    if isinstance(error, VideoMAEFastError):
        return str(error) or type(error).__name__
    try:
        words = " ".join(str(error).split())
    except Exception as other:  # an error that can't even say what it is
        words = f"says nothing ({type(other).__name__})"
    words = words.encode("utf-8", "backslashreplace").decode()
    if len(words) > _LONGEST:
        words = words[: _LONGEST - 3] + "..."
    return f"{type(error).__name__}: {words}" if words else type(error).__name__


def cut(text: str, most: int = 80) -> str:
    """A foreign text as an error shows it, however long it is."""
    return text if len(text) <= most else text[:most] + "…"


class ListError(VideoMAEFastError, ValueError):
    """A data list can't be read; the message names file, line, what was found and expected."""


class DecodeError(VideoMAEFastError):
    """A video (or a frame of it) can't be decoded.

    The only error that the data pipeline turns into a :class:`~videomae_fast.data.Failure`:
    decoders translate what their libraries raise for bad input, and what nobody foresaw becomes
    one where files are read (:func:`one_file`).

    Attributes:
        reason: a sentence.
        trace: the traceback of an error that nobody foresaw, else empty.
    """

    def __init__(self, reason: str, trace: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.trace = trace

    @classmethod
    def unforeseen(cls, error: Exception) -> DecodeError:
        """For an error that no decoder translates: its class and what it says."""
        trace = "".join(traceback.format_exception(error, limit=-_FRAMES))
        return cls(sentence(error), trace.encode("utf-8", "backslashreplace").decode())


@contextmanager
def one_file() -> Iterator[None]:
    """Every error within is one of the file that is read there, or of what is made of it.

    What one file makes a library raise must not end a run, which would meet the file again when it
    goes on. A fault that has nothing to do with files is met at all of them, and told so often.
    """
    try:
        yield
    except (DecodeError, OutputError, StoreUnreachableError, StoppedWaitingError):
        raise
    except Exception as error:
        raise DecodeError.unforeseen(error) from error


class FailureShareError(VideoMAEFastError):
    """More draws failed than the run allows; the message names the report and the reasons."""


class OutputError(VideoMAEFastError):
    """What was made can't be written (disk full, no permission); the message names the file."""


class StoreUnreachableError(VideoMAEFastError):
    """An object store can't be reached, which is nobody's clip's fault; the message says why."""


class StoreRefusedError(StoreUnreachableError):
    """An object store answers, and would answer the same again: nobody waits; the message says what
    is to be done."""


class StoppedWaitingError(VideoMAEFastError):
    """Data was waited for until nobody wanted it any more; the message says for which."""


class WorkerDiedError(VideoMAEFastError, RuntimeError):
    """A worker process ended (decoder crash, out of memory, shared memory full)."""
