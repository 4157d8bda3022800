"""SIGTERM and SIGINT as a wish that the loop asks about between steps."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any, Final

SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)


class StopRequest:
    """While entered, the first SIGTERM or SIGINT sets ``signum``; a second SIGINT interrupts.

    Outside the main thread, where Python takes no signals, it does nothing.

    Attributes:
        signum: of the first signal; 0: none came.
        held: what is waited for is needed first, whatever came.
    """

    def __init__(self) -> None:
        self.signum = 0
        self.held = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():
            self._before = {signum: signal.signal(signum, self._take) for signum in SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for signum, handler in self._before.items():
            signal.signal(signum, handler)

    def _take(self, signum: int, frame: FrameType | None) -> None:
        if self.signum and signum == signal.SIGINT:
            raise KeyboardInterrupt
        self.signum = signum
        if signum == signal.SIGTERM:
            # Job schedulers send it to loader processes too. Torch's loader reports their end by
            # raising from a SIGCHLD handler, anywhere, even in the middle of an update; without
            # that handler it is noticed where the next batch is asked for.
            before = signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            self._before.setdefault(signal.SIGCHLD, before)
