"""Threads take short turns while loaders run, and usual ones afterwards."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

from videomae_fast.data.loader.turns import ShortTurns


@pytest.fixture
def interval() -> Iterator[float]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(0.004)
    yield sys.getswitchinterval()
    sys.setswitchinterval(before)


def test_the_last_block_to_end_restores_the_setting(interval: float) -> None:
    one, two = ShortTurns(), ShortTurns()
    one.__enter__()
    assert sys.getswitchinterval() == pytest.approx(5e-4)
    with two:
        one.__exit__(None, None, None)
        assert sys.getswitchinterval() == pytest.approx(5e-4)
    assert sys.getswitchinterval() == pytest.approx(interval)
    with pytest.raises(KeyError), one:
        raise KeyError
    assert sys.getswitchinterval() == pytest.approx(interval)


def test_shorter_turns_than_that_stay(interval: float) -> None:
    sys.setswitchinterval(1e-4)
    before = sys.getswitchinterval()
    with ShortTurns():
        assert sys.getswitchinterval() == pytest.approx(before, abs=2e-6)
