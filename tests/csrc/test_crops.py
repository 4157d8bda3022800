"""Crop and resize of the compiled library: threads, tables that do not fit."""

from __future__ import annotations

import ctypes
import sys

import pytest
import torch
from torch import Tensor

from tests.support.building import in_place_of_ours, without_levels
from tests.support.processes import printed
from videomae_fast.ops import crop_resize
from videomae_fast.ops._native import crops
from videomae_fast.ops.crop_plan import PRECISION, CropPlan, crop_plan

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
    out = torch.empty((1, 5, 20, 30, 3), dtype=torch.uint8)
    crops.crop_resize(*plan, out)
    assert torch.equal(out, crop_resize(kept, VIEWS[:1], (20, 30), impl="reference"))
    wrong = CropPlan(plan.views.clone(), plan.tables)
    wrong.views[0, field] = value
    with pytest.raises(ValueError, match="refuses its arguments"):
        crops.crop_resize(*wrong, out)


FENCED = """
import ctypes, mmap
import torch
from videomae_fast.ops import crop_resize
from videomae_fast.ops._native.calls import _function
from videomae_fast.ops.crop_plan import crop_plan

PAGE, kept = mmap.PAGESIZE, []
protect = ctypes.CDLL(None).mprotect
protect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]

def fenced(size, at_end):
    pages = -(-size // PAGE)
    kept.append(mmap.mmap(-1, (pages + 2) * PAGE))
    whole = torch.frombuffer(kept[-1], dtype=torch.uint8)
    for page in (0, pages + 1):
        assert protect(whole.data_ptr() + page * PAGE, PAGE, 0) == 0
    begin = (pages + 1) * PAGE - size if at_end else PAGE
    return whole[begin : begin + size]

function = _function("vmf_crop_resize", "pppiiiiii")
for at_end in (False, True):
    for width in (3, 5, 16, 21, 22, 43, 64, 85, 100):
        for out_width in (1, 5, 6, 16, 21, 32, 75):
            for flip in (0, 1):
                clip = fenced(7 * width * 3, at_end).view(1, 7, width, 3).random_()
                view = torch.tensor([[0, 0, 0, width, 7, flip]])
                plan = crop_plan([clip], view, 5, out_width)
                out = fenced(5 * out_width * 3, at_end).fill_(77)
                places = [tensor.data_ptr() for tensor in (*plan, out)]
                assert function(*places, 1, plan.tables.numel(), 1, 5, out_width, 1) == 0
                right = crop_resize([clip], view, (5, out_width), impl="reference")
                assert torch.equal(out, right.flatten()), (width, out_width, flip)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="fences are made with mprotect")
def test_memory_around_box_and_result_is_not_touched() -> None:
    """They begin or end where no page can be touched: an access beside them ends the process."""
    printed(FENCED)


@pytest.fixture(scope="module")
def without_picks(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    """The library's crops for a processor that can't pick bytes at will."""
    folder = tmp_path_factory.mktemp("csrc")
    return without_levels("crop_resize.cpp", (), folder, "-DVMF_NO_BYTE_PICKS")


def assert_the_references_bits() -> None:
    generator = torch.Generator().manual_seed(1)
    clip = torch.randint(0, 256, (2, 70, 90, 3), dtype=torch.uint8, generator=generator)
    for width in range(12, 90, 6):  # of boxes, to 32 pixels: 2 to 7 meet in one
        view = torch.tensor([[0, 90 - width, 5, width, 60, width % 4 // 2]])
        for size in ((32, 32), (60, 21)):
            ours = crop_resize([clip], view, size, impl="native")
            assert torch.equal(ours, crop_resize([clip], view, size, impl="reference"))


def test_few_and_many_pixels_meet() -> None:
    assert_the_references_bits()


@pytest.mark.parametrize("apart", [19, 20, 40])
def test_neighbours_far_apart(apart: int) -> None:
    """No filter has such a table, but the library is given them: two results, 64 bytes or more."""
    clip = torch.randint(0, 256, (1, 3, 60, 3), dtype=torch.uint8)
    one = 1 << PRECISION
    across = [0, one // 4, one - one // 4, apart, one // 2, one // 2]
    down = [number for row in range(3) for number in (row, one)]
    view = [0, clip.data_ptr(), clip.stride(0), clip.stride(1), 60, 3, 0, 2, len(across), 1, 0]
    tables = torch.tensor(across + down, dtype=torch.int32)
    out = torch.empty((1, 1, 3, 2, 3), dtype=torch.uint8)
    crops.crop_resize(torch.tensor([view]), tables, out)
    x = clip.int()
    left = (across[1] * x[..., 0, :] + across[2] * x[..., 1, :] + one // 2) >> PRECISION
    right = (one // 2 * (x[..., apart, :] + x[..., apart + 1, :]) + one // 2) >> PRECISION
    assert torch.equal(out[0].int(), torch.stack([left, right], 2))


def test_processors_that_can_not_pick_bytes(without_picks: ctypes.CDLL) -> None:
    with in_place_of_ours(without_picks):
        assert_the_references_bits()
