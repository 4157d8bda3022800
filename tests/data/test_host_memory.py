"""Memory of batches is used again, and never while a batch lies in it."""

from __future__ import annotations

import torch

from videomae_fast.data.device.host_memory import KEPT, HostMemory


def test_memory_is_used_again_once_its_batch_is_gone() -> None:
    memory = HostMemory(pinned=False)
    first = memory.take((2, 3, 8))
    assert (first.shape, first.dtype, first.is_contiguous()) == ((2, 3, 8), torch.uint8, True)
    place = first.data_ptr()
    del first
    again = memory.take((6, 8))
    assert again.data_ptr() == place


def test_memory_is_not_used_while_anything_lies_in_it() -> None:
    memory = HostMemory(pinned=False)
    held = memory.take((4, 8)).view(torch.float32)[1:]  # a view of a view: the batch's rows
    array = memory.take((4, 8)).numpy()
    held.fill_(1.5)
    array.fill(7)
    for _ in range(2 * KEPT):
        memory.take((4, 8)).fill_(0)
    assert torch.equal(held, torch.full((3, 2), 1.5))
    assert (array == 7).all()


def test_another_size_has_memory_of_its_own_and_little_is_kept() -> None:
    memory = HostMemory(pinned=False)
    places = {memory.take((size,)).data_ptr() for size in range(1, 50)}
    assert places
    assert len(memory._kept) == KEPT
    held = [memory.take((64,)) for _ in range(3 * KEPT)]
    assert len({one.data_ptr() for one in held}) == len(held)
    assert len(memory._kept) == KEPT
