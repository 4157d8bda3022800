"""How long a thread was ready to compute and had no core: time that no faster disk would save."""

from __future__ import annotations

import os
import threading
from typing import Final

_FILE: Final = "/proc/thread-self/schedstat"
_thread = threading.local()


def seconds_without_core() -> float:
    """Of this thread, since it began; 0 where the system doesn't count them."""
    try:
        counted: _Counted | None = getattr(_thread, "counted", None)
        if counted is None or counted.pid != os.getpid():  # a fork has its parent's
            counted = _thread.counted = _Counted()
        return int(os.pread(counted.file, 256, 0).split()[1]) / 1e9
    except (OSError, ValueError, IndexError):
        return 0.0


class _Counted:
    """The thread's file, open: opening it each time would cost more than a cached clip's frames."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self.file = os.open(_FILE, os.O_RDONLY | os.O_CLOEXEC)

    def __del__(self) -> None:
        if hasattr(self, "file"):
            os.close(self.file)
