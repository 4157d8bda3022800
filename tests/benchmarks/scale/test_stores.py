"""Stores at scale: many rows cost little, and what is fetched ahead hides delays."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.scale.store_network import Network, waited, write_clips
from benchmarks.scale.store_rows import VIDEOS, measured, write_rows
from benchmarks.scale.stores import PAUSE


@pytest.mark.parametrize("rows", [10**5, 10**9])
def test_nothing_is_held_for_a_row(tmp_path: Path, rows: int) -> None:
    found = measured(write_rows(tmp_path / "store", rows))
    assert (found["rows"], found["requests"]) == (rows, VIDEOS if rows < 10**6 else 0)
    assert found["own_bytes_more"] < 50e6
    assert found["start_s"] < 10, "milliseconds, on a machine with time"


def test_a_network_that_is_slow_fails_and_cuts(tmp_path: Path) -> None:
    """Answers 50 ms late, one in a hundred an error and one cut: hidden by 64 clips ahead. A fifth
    of the time is waited at most, beyond what a busy machine makes wait without any of it."""
    pytest.importorskip("obstore")
    served, kept = write_clips(tmp_path, 16), tmp_path / "kept"
    idle = waited(served, kept, Network(0.0, 0, 0), ahead=64, steps=10, **PAUSE)
    ahead = waited(served, kept, Network(), ahead=64, steps=10, **PAUSE)
    alone = waited(served, kept, Network(), ahead=1, steps=2, **PAUSE)
    for found in (ahead, alone):
        assert found["unreadable"] == 0
        assert 1 <= found["requests_per_clip"] <= 2
        assert found["bytes_per_clip_byte"] <= 1.05
    assert min(ahead["failed"], ahead["cut"]) > 0
    assert ahead["waiting_share"] < 0.2 + idle["waiting_share"]
    assert alone["waiting_share"] > 0.3, "one after another takes twice as long as the steps"
