"""The name under which the processes of one start meet."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch.distributed as dist

from videomae_fast.training.parallel.starts import name_of_start


def names(store: Any, size: int) -> set[str]:
    """Of one start of so many processes."""
    with ThreadPoolExecutor(size) as pool:
        return set(pool.map(lambda rank: name_of_start(store, rank, size, 30.0), range(size)))


def test_each_start_has_one_whatever_became_of_those_before() -> None:
    store = dist.HashStore()  # type: ignore[attr-defined]
    found = [names(store, size) for size in (3, 3, 2, 4)]
    assert [len(each) for each in found] == [1, 1, 1, 1]
    assert len(set().union(*found)) == 4


def test_who_asked_in_vain_before_is_nobody_now() -> None:
    store = dist.HashStore()  # type: ignore[attr-defined]
    for rank in (1, 2):
        with pytest.raises(RuntimeError):  # its main process never came
            name_of_start(store, rank, 3, 0.01)
    with pytest.raises(dist.DistStoreError, match="of 3 processes 2 did not come: 1"):
        name_of_start(store, 0, 3, 0.01)
    assert len(names(store, 3)) == 1
