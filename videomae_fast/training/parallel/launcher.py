"""The end of the launcher: its processes end too, instead of writing on where a new run begins."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final

_LOOK_SECONDS: Final = 0.5
_GRACE_SECONDS: Final = 60.0


@contextmanager
def ending_with_launcher() -> Iterator[None]:
    """While entered under torchrun, ends this process soon after torchrun has (it may be killed).

    As if SIGTERM came: the step in progress is finished and the state saved. A process that has
    not come out a minute later, because it waits for one that is no more, ends at once.

    A process that nobody launched, or a shell did, is left alone: those outlive their parent by
    intention (``nohup``).
    """
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        yield
        return
    # A prctl(PR_SET_PDEATHSIG) would come when the launcher's thread ends that started this one.
    done = threading.Event()
    watch = threading.Thread(target=_watch, args=(os.getppid(), done), name="launcher", daemon=True)
    watch.start()
    try:
        yield
    finally:
        done.set()


def _watch(launcher: int, done: threading.Event) -> None:
    while os.getppid() == launcher:
        if done.wait(_LOOK_SECONDS):
            return
    with suppress(OSError, ValueError):  # the launcher may have read what is written here
        print(f"the launcher (process {launcher}) is gone: ending", file=sys.stderr, flush=True)
    os.kill(os.getpid(), signal.SIGTERM)
    if not done.wait(_GRACE_SECONDS):
        os._exit(128 + signal.SIGTERM)
