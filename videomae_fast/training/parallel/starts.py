"""A name for each start of a run's processes, under which they meet and no others."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import Final
from uuid import uuid4

from torch.distributed import DistStoreError, Store  # type: ignore[attr-defined]

_LOOK_SECONDS: Final = 0.01


def name_of_start(store: Store, rank: int, size: int, seconds: float) -> str:
    """A name that these processes have in common, and those of no other start.

    A launcher's store survives its restarts, with the addresses of processes that are no more. Its
    count of restarts tells them apart only while the nodes stay the same: one that comes later
    counts from 0, and a node more or less is no restart. So the first process makes a name up and
    gives it to each that asks, by a number of that process's own: what was asked or given before
    finds nobody.

    Args:
        store: the launcher's.
        rank, size: of this process among all.
        seconds: to wait for the others.

    Raises:
        DistStoreError: the others did not come.
    """
    if rank:
        return _asked(store, rank, timedelta(seconds=seconds))
    name, deadline = uuid4().hex, time.monotonic() + seconds
    missing, answered = set(range(1, size)), dict[int, bytes]()
    while missing:
        for other in sorted(missing):
            if other in answered and store.check([_taken(name, other)]):
                missing.remove(other)
            elif store.check([_asks(other)]):
                number = store.get(_asks(other))
                if answered.get(other) != number:  # one of before may have asked, too
                    store.set(_answer(number.decode()), name)
                    answered[other] = number
        if missing and time.monotonic() > deadline:
            raise DistStoreError(f"of {size} processes {len(missing)} did not come: {min(missing)}")
        time.sleep(_LOOK_SECONDS if missing else 0)
    return name


def _asked(store: Store, rank: int, patience: timedelta) -> str:
    number = uuid4().hex
    store.set(_asks(rank), number)
    store.wait([_answer(number)], patience)
    name: str = store.get(_answer(number)).decode()
    store.set(_taken(name, rank), "")
    return name


def _asks(rank: int) -> str:
    return f"videomae-fast/asks/{rank}"


def _answer(number: str) -> str:
    return f"videomae-fast/answer/{number}"


def _taken(name: str, rank: int) -> str:
    return f"videomae-fast/taken/{name}/{rank}"
