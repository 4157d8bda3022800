"""Reading ahead where the system refuses what it takes: nothing is left open."""

from __future__ import annotations

import errno
import multiprocessing
import os
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from videomae_fast.data.loader import ahead as ahead_module
from videomae_fast.data.loader.ahead import ReadAhead
from videomae_fast.data.loader.stats import PipelineStats


def open_files() -> set[tuple[int, int]]:
    """What this process has open. Their number would not do: connections that an earlier test left
    idle in the pool of an object store's client are closed by both sides when these like."""
    found = set()
    for name in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):
            stat = os.stat(f"/proc/self/fd/{name}")
            found.add((stat.st_dev, stat.st_ino))
    return found


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="open files are counted in /proc")
@pytest.mark.parametrize("refused", ["Slot", "WorkerPool", "Thread"])
def test_nothing_is_left_open_where_it_can_not_begin(
    refused: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a training run that begins again with fewer workers."""
    calls = 0
    module: Any = threading if refused == "Thread" else ahead_module
    right = getattr(module, refused)

    def sometimes(*args: Any, **settings: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == (4 if refused == "Slot" else 1):
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return right(*args, **settings)

    def begin() -> ReadAhead:
        reading: Any = None  # no request is ever read
        return ReadAhead(
            [], reading, workers=2, held=2, time_limit=None, stats=PipelineStats(workers=2)
        )

    begin().close()  # what is made once per process: the server that forks
    files, children = open_files(), len(multiprocessing.active_children())
    with monkeypatch.context() as patch:
        patch.setattr(module, refused, sometimes)
        with pytest.raises(OSError, match="Too many open files"):
            begin()
    assert open_files() <= files
    assert len(multiprocessing.active_children()) == children
