"""What can go wrong with data, as errors that name the file and the remedy."""

from __future__ import annotations

from videomae_fast.errors import VideoMAEFastError


class ListError(VideoMAEFastError, ValueError):
    """A data list can't be read; the message names file, line, what was found and expected."""


class DecodeError(VideoMAEFastError):
    """A video (or a frame of it) can't be decoded.

    The only error that the data pipeline turns into a :class:`~videomae_fast.data.Failure`:
    decoders translate what their libraries raise for bad input, and nothing else.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class FailureShareError(VideoMAEFastError):
    """More draws failed than the run allows; the message names the report and the reasons."""


class OutputError(VideoMAEFastError):
    """What was made can't be written (disk full, no permission); the message names the file."""


class WorkerDiedError(VideoMAEFastError, RuntimeError):
    """A worker process ended (decoder crash, out of memory, shared memory full)."""
