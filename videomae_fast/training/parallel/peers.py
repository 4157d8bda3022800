"""What a run's processes tell each other when one fails: why, instead of a lost connection."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Final

import torch.distributed as dist
from torch.distributed import Store  # type: ignore[attr-defined]

from videomae_fast.data.errors import FailureShareError, StoreUnreachableError
from videomae_fast.errors import VideoMAEFastError
from videomae_fast.training.errors import (
    InterruptedRunError,
    NonFiniteError,
    RankFailedError,
    ReplicaError,
)

AGREED: Final = (
    InterruptedRunError,
    NonFiniteError,
    ReplicaError,
    FailureShareError,
    StoreUnreachableError,
)
"""Errors that all processes raise at the same place, since they know the same of it."""

_KEY: Final = "failed"
_PATIENCE: Final = timedelta(seconds=3)
_SIGNS: Final = ("gloo", "NCCL", "ProcessGroup")
"""Words in errors of torch.distributed that are plain RuntimeErrors."""


@contextmanager
def failing_together(
    store: Store | None, rank: int, waits_for: Callable[[], str | None] = lambda: None
) -> Iterator[None]:
    """An error within is told to the other processes; where they told one, it takes the place of
    what it led to here.

    Args:
        store: common to the processes; None where there is one.
        rank: of this process.
        waits_for: what is known of whom this process waited for too long.

    Raises:
        RankFailedError: another process failed, stands still, or can't be reached.
    """
    try:
        yield
    except (*AGREED, RankFailedError):
        raise
    except Exception as error:
        if store is None:
            raise
        if isinstance(error, RuntimeError) and not isinstance(error, VideoMAEFastError):
            broken = isinstance(error, dist.DistError) or any(s in str(error) for s in _SIGNS)
            silent = waits_for() if broken else None
            told = _told(store, wait=broken and silent is None)
            if told is not None:
                raise RankFailedError(
                    f"rank {told[0]} failed: {told[1]}; see its message"
                ) from error
            if silent is not None:
                raise RankFailedError(stands_still(silent)) from error
            if broken:
                first = str(error).strip().splitlines()[0]
                raise RankFailedError(
                    "another process of the run ended without a word (killed?), or can't be "
                    f"reached any more: {first}"
                ) from error
        _tell(store, rank, error)
        raise


def stands_still(waits_for: str) -> str:
    """What is said where a process waited too long. waits_for: for whom."""
    return (
        f"the run stands still: {waits_for}. A longer wait than run.group_timeout is an error "
        "(--group-timeout); what all did is in the run's folder hang"
    )


def _tell(store: Store, rank: int, error: Exception) -> None:
    said = str(error).strip() or type(error).__name__
    if not isinstance(error, VideoMAEFastError):
        said = f"{type(error).__name__}: {said.splitlines()[0]}"
    with suppress(RuntimeError):  # the store may have gone with the process that held it
        # Only the first counts: the others may follow from it
        store.compare_set(_KEY, "", json.dumps([rank, said]))


def _told(store: Store, *, wait: bool) -> tuple[int, str] | None:
    """Rank and words of the first failure; waits a little for it where there must have been one."""
    try:
        if wait:
            store.wait([_KEY], _PATIENCE)
        elif not store.check([_KEY]):
            return None
        rank, said = json.loads(store.get(_KEY))
    except RuntimeError:
        return None
    return rank, said
