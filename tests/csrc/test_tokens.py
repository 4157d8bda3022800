"""What of gathers and appended rows holds for the compiled library alone."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.support import library

SHAPES = [(1, 1, 1, 1), (3, 10, 4, 7), (2, 8, 20, 192)]  # clips, tokens, index entries, width


def draw_index(clips: int, tokens: int, entries: int) -> Tensor:
    return torch.randint(0, tokens, (clips, entries), dtype=torch.int32)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64, torch.uint8])
def test_gather(shape: tuple[int, int, int, int], dtype: torch.dtype, threads: int) -> None:
    b, n, k, d = shape
    x, index = (torch.randn(b, n, d) * 50).abs().to(dtype), draw_index(b, n, k)
    out = library.token_gather(x, index)
    assert torch.equal(out, torch.stack([x[i, index[i].long()] for i in range(b)]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize(("own", "appended"), [(3, 9), (0, 4), (4, 0)])
@pytest.mark.parametrize("width", [1, 5, 192])
def test_append_rows(own: int, appended: int, width: int, dtype: torch.dtype, threads: int) -> None:
    batch, rows = 2, 12
    x, table = torch.randn(batch, own, width).to(dtype), torch.randn(rows, width).to(dtype)
    index = draw_index(batch, rows, appended)
    assert torch.equal(
        library.append_rows(x, table, index), torch.cat([x, table[index.long()]], dim=1)
    )


@pytest.mark.parametrize(("own", "appended"), [(3, 40), (0, 4), (4, 0)])
def test_append_rows_backward_adds_in_order(own: int, appended: int, threads: int) -> None:
    """Positions repeat, and some are not named; the sum is that of a loop, bit for bit."""
    batch, rows, width = 3, 12, 300
    grad = torch.randn(batch, own + appended, width)
    index = draw_index(batch, rows - 1, appended)
    out = library.append_rows_backward(grad, index, rows)
    expected = torch.zeros(rows, width)
    for b in range(batch):
        for k in range(appended):
            expected[index[b, k]] += grad[b, own + k]
    assert torch.equal(out, expected)


def test_positions_out_of_range_are_named() -> None:
    x = torch.randn(2, 4, 3)
    index = torch.tensor([[0, 3], [1, 4]], dtype=torch.int32)
    with pytest.raises(IndexError, match=r"position 4 \(clip 1, entry 1\)"):
        library.token_gather(x, index)
    with pytest.raises(IndexError, match=r"position -1 \(clip 0, entry 0\)"):
        library.token_scatter(x[:, :2], index - 1, 4)
    good = index.clamp(max=3)
    with pytest.raises(IndexError, match=r"position 4 \(clip 1, entry 1\)"):
        library.append_rows(x, torch.zeros(4, 3), index)
    with pytest.raises(IndexError, match=r"position -1 \(clip 0, entry 0\)"):
        library.append_rows_backward(x, index - 1, 4)
    for first, second in ((index, good), (good, index)):
        with pytest.raises(IndexError, match=r"position 4 \(clip 1, entry 1\)"):
            library.decoder_assembly(x[:, :2], torch.zeros(3), torch.zeros(4, 3), first, second)
