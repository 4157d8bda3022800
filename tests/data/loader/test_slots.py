"""Slots: what a worker writes is what the main process sees, also where others made them larger."""

from __future__ import annotations

import errno
import mmap
import os
from collections.abc import Iterator

import numpy as np
import pytest
from numpy.typing import NDArray

from videomae_fast.data.errors import OutputError
from videomae_fast.data.loader.slots import Slot, SlotWriter

PAGE = mmap.PAGESIZE


@pytest.fixture
def slot() -> Iterator[Slot]:
    made = Slot()
    yield made
    made.close()


def pixels(size: int, seed: int) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, size, dtype=np.uint8)


def test_writers_take_turns_with_pieces_of_any_size(slot: Slot) -> None:
    one, two = SlotWriter(), SlotWriter()
    sizes = [PAGE, 10, 3 * PAGE + 7, 2 * PAGE, 9 * PAGE, 1, 9 * PAGE]
    for number, size in enumerate(sizes):
        data = pixels(size, number)
        (one, two)[number % 2].write(slot.path, data.reshape(1, size))
        assert np.array_equal(slot.view(size), data)
    assert slot.view(0).size == 0


def test_a_slot_stays_mapped(slot: Slot, monkeypatch: pytest.MonkeyPatch) -> None:
    """Mapping costs ten times the copy."""
    writer = SlotWriter()
    writer.write(slot.path, pixels(PAGE, 0))
    monkeypatch.setattr(mmap, "mmap", None)
    writer.write(slot.path, pixels(PAGE - 1, 1))
    writer.write(slot.path, pixels(0, 2))
    monkeypatch.undo()
    assert np.array_equal(slot.view(PAGE - 1), pixels(PAGE - 1, 1))


def test_room_in_a_slot_is_the_slot(slot: Slot) -> None:
    room = SlotWriter().room(slot.path, (2, PAGE, 3))
    room[...] = 7
    room[1, 5, 2] = 8
    seen = slot.view(room.size).reshape(room.shape)
    assert seen[1, 5, 2] == 8
    assert np.count_nonzero(seen == 7) == room.size - 1
    assert SlotWriter().room(slot.path, (0, 3)).shape == (0, 3)


def test_no_memory_is_an_error_and_not_a_crash(slot: Slot, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OutputError, match=r"clip of 5 MB \(No space left on device\): use fewer"):
        SlotWriter().write(slot.path, pixels(5_000_000, 0))
