"""The end of the launcher: its processes end too, instead of writing on where a new run begins."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from typing import Final

_LOOK_SECONDS: Final = 0.5
_GRACE_SECONDS: Final = 60.0


def end_with_launcher() -> None:
    """Under torchrun, ends this process soon after torchrun has (it may be killed).

    As if SIGTERM came: the step in progress is finished and the state saved. A process that has
    not ended a minute later, because it waits for one that is no more, ends at once.

    A process that nobody launched, or a shell did, is left alone: those outlive their parent by
    intention (``nohup``).
    """
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return
    # A prctl(PR_SET_PDEATHSIG) would come when the launcher's thread ends that started this one.
    watch = threading.Thread(target=_watch, args=(os.getppid(),), name="launcher", daemon=True)
    watch.start()


def _watch(launcher: int) -> None:
    while os.getppid() == launcher:
        time.sleep(_LOOK_SECONDS)
    print(f"the launcher (process {launcher}) is gone: ending", file=sys.stderr, flush=True)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(_GRACE_SECONDS)
    os._exit(128 + signal.SIGTERM)
