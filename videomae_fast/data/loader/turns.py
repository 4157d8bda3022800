"""Short turns for Python's threads while loader processes are served."""

from __future__ import annotations

import sys
import threading
from typing import ClassVar, Final, Self

_SECONDS: Final = 5e-4


class ShortTurns:
    """``with ShortTurns():`` a thread that waits for the interpreter has it within 0.5 ms.

    One that computes, like a training loop that launches kernels, hands it over only when it is
    asked to, by default after 5 ms, and each message of a loader process needs it several times:
    half of what a dozen processes could do was done. The setting is the whole interpreter's;
    the last block to end restores it.
    """

    _lock: ClassVar = threading.Lock()
    _inside: ClassVar[int] = 0
    _usual: ClassVar[float] = 0.0

    def __enter__(self) -> Self:
        with self._lock:
            if ShortTurns._inside == 0:
                ShortTurns._usual = sys.getswitchinterval()
                sys.setswitchinterval(min(ShortTurns._usual, _SECONDS))
            ShortTurns._inside += 1
        return self

    def __exit__(self, *_: object) -> None:
        with self._lock:
            ShortTurns._inside -= 1
            if ShortTurns._inside == 0:
                sys.setswitchinterval(ShortTurns._usual)
