"""Waiting for a store that can't be reached: for how long, and whether anybody still wants it."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future
from contextvars import ContextVar
from typing import Final, TypeVar

from videomae_fast.data.errors import StoppedWaitingError, StoreRefusedError, StoreUnreachableError

T = TypeVar("T")

LOOK: Final = 0.1
"""Seconds between looks at whether anybody still waits."""

_FIRST_PAUSE, _LONGEST_PAUSE = 0.25, 30.0
_STOPPED: ContextVar[Callable[[], bool]] = ContextVar("stopped", default=lambda: False)


def patiently(ask: Callable[[], T], seconds: float, stopped: Callable[[], bool]) -> T:
    """What a store gives, asked again with longer and longer pauses while it can't be reached.

    Args:
        ask: raises StoreUnreachableError where it can't.
        seconds: after which that is raised.
        stopped: whether nobody waits any more.

    Raises:
        StoreUnreachableError: it could not be reached for so long, or, at once, it refuses.
        StoppedWaitingError: nobody waits any more.
    """
    deadline, pause = time.monotonic() + seconds, _FIRST_PAUSE
    before = _STOPPED.set(stopped)
    try:
        while True:
            try:
                return ask()
            except StoreRefusedError:
                raise
            except StoreUnreachableError as error:
                if stopped():
                    raise StoppedWaitingError(str(error)) from error
                if time.monotonic() + pause > deadline:
                    raise StoreUnreachableError(f"{error} (tried for {seconds:g} s)") from error
            until = time.monotonic() + pause
            while time.monotonic() < until and not stopped():
                time.sleep(min(LOOK, pause))
            pause = min(2 * pause, _LONGEST_PAUSE)
    finally:
        _STOPPED.reset(before)


def awaited(coming: Future[T]) -> T:
    """What comes, unless whoever asked with :func:`patiently` waits no more.

    Raises:
        StoppedWaitingError: so; what comes was cancelled.
    """
    stopped = _STOPPED.get()
    while True:
        try:
            return coming.result(LOOK)
        except TimeoutError:
            if coming.done():  # its own
                raise
            if stopped():
                coming.cancel()
                raise StoppedWaitingError("an object store's answer was waited for") from None
