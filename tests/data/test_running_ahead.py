"""Items made ahead by a thread: order, bounds, errors, and an end that waits for the thread."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing

import pytest

from videomae_fast.data.decoders.running_ahead import running_ahead


def _threads() -> int:
    return sum(thread.name == "running-ahead" for thread in threading.enumerate())


def test_all_in_their_order_and_one_is_made_while_another_is_used() -> None:
    made: list[int] = []
    second = threading.Event()

    def items() -> Iterator[int]:
        for number in range(50):
            made.append(number)
            if number == 1:
                second.set()
            yield number

    found = []
    for number in running_ahead(items()):
        if number == 0:
            assert second.wait(10)
        assert len(made) <= number + 3  # taken, waiting, being made
        found.append(number)
    assert found == list(range(50))
    assert _threads() == 0


def test_an_error_comes_in_its_place() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise KeyError("here")

    found = running_ahead(items())
    assert next(found) == 1
    with pytest.raises(KeyError, match="here"):
        next(found)
    assert _threads() == 0


@pytest.mark.parametrize("taken", [0, 1, 5])
def test_closed_half_way_it_has_ended(taken: int) -> None:
    ended = threading.Event()

    def items() -> Iterator[int]:
        try:
            yield from range(1000)
        finally:
            ended.set()

    with closing(running_ahead(items(), 2)) as found:
        for _ in range(taken):
            next(found)
    assert _threads() == 0
    assert ended.is_set() or taken == 0  # a generator that was never begun runs nothing


def test_none_and_a_wrong_depth() -> None:
    assert list(running_ahead(iter(()))) == []
    with pytest.raises(ValueError, match="at least 1, not 0"):
        next(running_ahead(iter((1,)), 0))
