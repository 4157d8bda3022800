"""What can stop a run, as errors that say what was saved and what to do."""

from __future__ import annotations

import signal

from videomae_fast.errors import CheckpointError, VideoMAEFastError

__all__ = [
    "CheckpointError",
    "InterruptedRunError",
    "NonFiniteError",
    "RankFailedError",
    "ReplicaError",
]


class RankFailedError(VideoMAEFastError):
    """Another process of the run failed or was killed, so this one can't go on."""


class NonFiniteError(VideoMAEFastError):
    """The loss or the gradient became NaN or infinite; the message names step, clips, state."""


class ReplicaError(VideoMAEFastError):
    """Copies of the weights differ that ought to be equal; the message names ranks and weights."""


class InterruptedRunError(VideoMAEFastError):
    """A signal asked the run to stop; the state was saved after the step in progress."""

    def __init__(self, message: str, signum: int) -> None:
        super().__init__(message)
        self.signum = signal.Signals(signum)

    @property
    def exit_code(self) -> int:
        """128 + the signal's number, as shells have it: 130 for SIGINT, 143 for SIGTERM."""
        return 128 + self.signum
