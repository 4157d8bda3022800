"""What a run that stands still says of itself: stacks on a signal, NCCL's flight recorder."""

from __future__ import annotations

import faulthandler
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def telling_stacks() -> Iterator[None]:
    """While entered, SIGUSR1 prints where every thread of this process is, to its errors."""
    if threading.current_thread() is not threading.main_thread() or _taken():
        yield
        return
    try:
        faulthandler.register(signal.SIGUSR1, all_threads=True)
    except (OSError, ValueError, RuntimeError):  # its errors go to no file
        yield
        return
    try:
        yield
    finally:
        faulthandler.unregister(signal.SIGUSR1)


@contextmanager
def hang_reports(output: Path) -> Iterator[None]:
    """While entered, NCCL writes its last collectives to ``output/hang`` when one takes too long.

    What is set in the environment stays as it is. Only where torchrun started several processes.
    """
    ours: list[str] = []
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        for name, value in (
            ("TORCH_NCCL_DUMP_ON_TIMEOUT", "1"),
            ("TORCH_FR_BUFFER_SIZE", "2000"),  # torch warns of its former name
            ("TORCH_NCCL_DEBUG_INFO_TEMP_FILE", str(output / "hang" / "nccl_rank")),
        ):
            if name not in os.environ:
                os.environ[name] = value
                ours.append(name)
    try:
        yield
    finally:
        for name in ours:
            os.environ.pop(name, None)


def _taken() -> bool:
    return signal.getsignal(signal.SIGUSR1) not in (signal.SIG_DFL, None)
