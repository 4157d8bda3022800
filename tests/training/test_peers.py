"""What a process says when another one failed."""

from __future__ import annotations

from datetime import timedelta

import pytest
import torch.distributed as dist

from videomae_fast.errors import UsageError
from videomae_fast.training.errors import NonFiniteError, RankFailedError
from videomae_fast.training.parallel.peers import failing_together

BROKEN = RuntimeError("[/x/gloo/transport/tcp/pair.cc:537] Connection closed by peer\nmore")


def raised(store: object, rank: int, error: Exception) -> Exception:
    """What comes of an error within one process's part."""
    try:
        with failing_together(store, rank):
            raise error
    except Exception as what:
        return what


def fail(store: object, rank: int, error: Exception) -> str:
    return str(raised(store, rank, error))


def store() -> object:
    return dist.HashStore()  # type: ignore[attr-defined]


def test_the_first_reason_takes_the_place_of_what_it_led_to() -> None:
    common = store()
    assert fail(common, 2, UsageError("no such list")) == "no such list"
    assert fail(common, 1, ValueError("a bug")) == "a bug"  # its own, whatever came first
    told = "rank 2 failed: no such list; see its message"
    broken = raised(common, 0, BROKEN)
    assert isinstance(broken, RankFailedError)
    assert str(broken) == told
    assert broken.__cause__ is BROKEN
    assert fail(common, 3, RuntimeError("storage of size 0")) == told


def test_an_error_that_nobody_foresaw_is_told_with_its_kind() -> None:
    common = store()
    fail(common, 1, ValueError("a bug\nwith a long text"))
    assert fail(common, 0, BROKEN) == "rank 1 failed: ValueError: a bug; see its message"


def test_a_process_that_was_killed_told_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("videomae_fast.training.parallel.peers._PATIENCE", timedelta(seconds=0.05))
    said = fail(store(), 0, BROKEN)
    assert said.startswith("another process of the run ended without a word (killed?), or can't")
    assert said.endswith("Connection closed by peer")


def test_errors_of_one_process_alone_and_of_all_stay_as_they_are() -> None:
    assert fail(None, 0, BROKEN) == str(BROKEN)
    common = store()
    assert fail(common, 0, RuntimeError("out of memory")) == "out of memory"
    common = store()
    assert fail(common, 0, NonFiniteError("step 3")) == "step 3"
    assert fail(common, 1, RuntimeError("storage of size 0")) == "storage of size 0"
