"""Crop and resize of the compiled library: threads, tables that do not fit."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from videomae_fast.ops import _native, crop_resize
from videomae_fast.ops.crop_plan import CropPlan, crop_plan

VIEWS = torch.tensor([[0, 3, 1, 50, 40, 0], [1, 0, 0, 31, 64, 1], [0, 0, 2, 20, 46, 1]])


def clips() -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    sizes = ((48, 64), (64, 31))
    return [
        torch.randint(0, 256, (5, *size, 3), dtype=torch.uint8, generator=generator)
        for size in sizes
    ]


def test_the_bits_do_not_depend_on_the_thread_count(threads: int) -> None:
    """Large enough for several threads; each frame of each view is one thread's."""
    ours = crop_resize(clips(), VIEWS, (200, 210), impl="native")
    assert torch.equal(ours, crop_resize(clips(), VIEWS, (200, 210), impl="reference"))


def test_nothing_outside_the_box_is_read() -> None:
    """The last box of a clip ends with its memory; what follows it there must not matter."""
    memory = torch.randint(0, 256, (2 * 30 * 20 * 3 + 64,), dtype=torch.uint8)
    clip = memory[: 2 * 30 * 20 * 3].view(2, 30, 20, 3)
    view = torch.tensor([[0, 7, 9, 13, 21, 0]])
    before = crop_resize([clip], view, (40, 50), impl="native")
    memory[2 * 30 * 20 * 3 :] ^= 255
    clip[:, :9] ^= 255
    clip[:, :, :7] ^= 255
    assert torch.equal(crop_resize([clip], view, (40, 50), impl="native"), before)


@pytest.mark.parametrize(
    ("field", "value"),
    [(4, 49), (4, 0), (5, 39), (6, -1), (6, 10**6), (7, 0), (8, 10**6), (9, 10**5)],
)
def test_plans_that_leave_a_box_are_refused(field: int, value: int) -> None:
    """A plan has checked boxes; the library checks the tables against them once more."""
    kept = clips()
    plan = crop_plan(kept, VIEWS[:1], 20, 30)
    assert torch.equal(
        _native.crop_resize(*plan, 5, 20, 30),
        crop_resize(kept, VIEWS[:1], (20, 30), impl="reference"),
    )
    wrong = CropPlan(plan.views.clone(), plan.tables)
    wrong.views[0, field] = value
    with pytest.raises(ValueError, match="refuses its arguments"):
        _native.crop_resize(*wrong, 5, 20, 30)
