"""The crop-and-resize kernel equals the reference bit for bit."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from videomae_fast.ops import crop_resize

# Rows: clip, left, top, width, height, flip. Shrinking, enlarging, both, neither, one pixel.
VIEWS = torch.tensor(
    [
        [0, 3, 1, 30, 15, 0],
        [1, 0, 0, 9, 23, 1],
        [0, 0, 0, 40, 18, 1],
        [1, 2, 2, 5, 3, 0],
        [1, 1, 4, 7, 7, 1],
        [0, 39, 17, 1, 1, 0],
    ]
)


def clips(device: str, frames: int = 1) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [
        torch.randint(0, 256, (frames, h, w, 3), dtype=torch.uint8, generator=generator).to(device)
        for h, w in ((18, 40), (23, 9))
    ]


@pytest.mark.parametrize("size", [(7, 7), (3, 50), (1, 1)], ids=str)
def test_equals_the_reference(size: tuple[int, int], device: str) -> None:
    sources = clips(device)
    out = crop_resize(sources, VIEWS, size, impl="triton")
    assert torch.equal(out, crop_resize(sources, VIEWS, size, impl="reference"))
    again = crop_resize(sources, VIEWS.to(device), size, impl="triton")
    assert torch.equal(out, again)


def test_layouts(device: str) -> None:
    """Several frames; crops and time slices read in place, channels first copied."""
    first, second = clips(device, 5)
    channels_first = second[::2].permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1)
    sources = [first[::2, 2:, 4:38], channels_first]
    assert not any(source.is_contiguous() for source in sources)
    views = torch.tensor([[1, 0, 2, 9, 20, 0], [0, 1, 1, 33, 15, 1]])
    out = crop_resize(sources, views, (5, 6), impl="triton")
    assert torch.equal(out, crop_resize(sources, views, (5, 6), impl="reference"))


def test_no_views(device: str) -> None:
    assert crop_resize(clips(device), VIEWS[:0], (4, 4), impl="triton").shape == (0, 1, 4, 4, 3)


def test_a_wrong_table_is_noticed(sabotage: Callable[..., None], device: str) -> None:
    """Negative control: one weight of 22 bits off by a quarter of a grey level's."""
    from videomae_fast.kernels import crop_resize as kernel

    sources = clips(device)
    reference = crop_resize(sources, VIEWS, (7, 7), impl="reference")

    def changed(tables: torch.Tensor) -> torch.Tensor:
        tables = tables.clone()
        tables[1] += 2**14
        return tables

    sabotage(kernel, "crop_resize_kernel", 1, changed)
    assert not torch.equal(crop_resize(sources, VIEWS, (7, 7), impl="triton"), reference)
