"""A short form of the fuzz of weights, which ``make fuzz`` runs at length."""

from __future__ import annotations

import gc
import time
from pathlib import Path

import pytest

from tests.fuzz import weights


def test_damaged_weights_are_refused_in_a_sentence(tmp_path: Path) -> None:
    assert list(weights.run(150, 11, tmp_path)) == []


def _freed_in_the_heap(size: int) -> list[bytes]:
    """Frees so many bytes, which malloc keeps, as what lies behind them is still in use: that."""
    one = 30_000_000
    bytes(one + 1000)  # freed at once: from then on as much comes from the heap
    freed = [b"x" * one for _ in range(size // one)]
    behind = [bytes(500) for _ in range(20_000)]
    freed.clear()
    return behind


def test_the_fuzz_finds_what_it_looks_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader with each fault in turn: a traceback, other values, other names, time, memory."""
    (source,) = [one for one in weights.healthy(tmp_path) if one.name == "zip.pth"]
    monkeypatch.setattr(weights, "MOST_SECONDS", 1.0)
    monkeypatch.setattr(weights, "MOST_BYTES", 50_000_000)
    truth = source.readers["read_weights"](source.path)
    key = sorted(truth)[0]

    def slow(_: Path) -> weights.State:
        end = time.process_time() + 1.1
        while time.process_time() < end:
            pass
        return truth

    def large(_: Path) -> weights.State:
        # Far over the limit: the system may take back pages of libraries at the same time
        return truth if b"x" * 300_000_000 else {}

    def wrong(_: Path) -> weights.State:
        raise KeyError("x")

    def silent(_: Path) -> weights.State:
        raise weights.WeightsError("bad weights")

    gc.collect()  # or what earlier tests left is given back meanwhile
    left = _freed_in_the_heap(330_000_000)  # which would serve `large`, and hide what it takes
    for read, told in (
        (wrong, "KeyError"),
        (silent, "not a sentence that names the file"),
        (lambda _: truth | {key: truth[key] + 1}, f"other values in ['{key}']"),
        (lambda _: {key: truth[key]}, "other names"),
        (large, "took .* MB"),
        (slow, "took .* s"),
        (lambda _: truth, ""),
    ):
        said = weights._outcome(read, source.path, truth, "bits")
        parts = told.split(".*")
        assert all(part in said for part in parts), (said, told)
        assert bool(said) == bool(told)
    assert left
