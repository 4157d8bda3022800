"""The token gather and scatter kernels against fp64 truths and the references of their dtype."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from videomae_fast.errors import BackendUnavailableError
from videomae_fast.ops import token_gather, token_scatter

DTYPES = [torch.float32, torch.bfloat16, torch.float16]
# batch, tokens, listed, width: one row, widths that are no power of two or wider than a tile
SHAPES = [(1, 1, 1, 1), (2, 7, 5, 48), (3, 37, 20, 192), (2, 20, 150, 288)]


def inputs(
    shape: tuple[int, ...], dtype: torch.dtype, device: str, repeats: bool = True
) -> tuple[torch.Tensor, torch.Tensor]:
    """x [B, N, D] and an index [B, K] that repeats positions, or a permutation's start."""
    b, n, k, d = shape
    generator = torch.Generator().manual_seed(sum(shape))
    x = torch.randn(b, n, d, generator=generator).to(dtype)
    index = torch.randint(n, (b, k), generator=generator, dtype=torch.int32)
    if not repeats:
        index = torch.stack([torch.randperm(n, generator=generator)[:k] for _ in range(b)]).int()
    return x.to(device), index.to(device)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_gather_copies(shape: tuple[int, ...], dtype: torch.dtype, device: str) -> None:
    x, index = inputs(shape, dtype, device)
    out = token_gather(x, index, impl="triton")
    assert torch.equal(out, token_gather(x, index, impl="reference"))


@pytest.mark.parametrize("repeats", [False, True])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_scatter(
    shape: tuple[int, ...],
    dtype: torch.dtype,
    repeats: bool,
    device: str,
    assert_accurate: Callable[..., None],
) -> None:
    b, n, k, d = shape
    k = k if repeats else min(n, k)
    _, index = inputs((b, n, k, d), dtype, device, repeats)
    x, _ = inputs((b, k, 1, d), dtype, device)
    out = token_scatter(x, index, n, impl="triton")
    reference = token_scatter(x, index, n, impl="reference")
    truth = token_scatter(x.double(), index, n, impl="reference")
    assert_accurate(out, reference, truth)
    assert torch.equal(out, token_scatter(x, index, n, impl="triton"))


def test_repeats_are_added_in_the_order_of_the_list(device: str) -> None:
    """1e8 - 1e8 + 1 is 1, in any other order 0 in fp32."""
    x = torch.tensor([1e8, -1e8, 1.0], device=device).reshape(1, 3, 1)
    index = torch.tensor([[2, 2, 2]], dtype=torch.int32, device=device)
    assert token_scatter(x, index, 4, impl="triton").flatten().tolist() == [0, 0, 1, 0]


def test_gradients_are_each_other(device: str) -> None:
    x, index = inputs((2, 9, 12, 40), torch.float32, device)
    results = []
    for impl in ("triton", "reference"):
        leaf = x.clone().requires_grad_()
        rows = token_gather(leaf, index, impl=impl)
        back = token_scatter(rows * rows, index, 9, impl=impl)
        (back * x).sum().backward()
        assert leaf.grad is not None
        results.append(leaf.grad)
    torch.testing.assert_close(results[0], results[1])


def test_layouts(device: str) -> None:
    """Slices of tokens and widths are read in place, transposed columns copied."""
    x, index = inputs((2, 12, 6, 64), torch.float32, device)
    for view in (
        x[:, 3:9, :40],
        x[:, ::2, 8:],
        x[:, :6].transpose(1, 2)[:, :6],
        x[:1, :6].expand(2, 6, 64),
    ):
        assert not view.is_contiguous()
        place = index % view.shape[1]
        dense = view.contiguous()
        out = token_gather(view, place[:, ::2], impl="triton")
        assert torch.equal(out, token_gather(dense, place[:, ::2].contiguous(), impl="reference"))
        out = token_scatter(view, place, 7, impl="triton")
        torch.testing.assert_close(out, token_scatter(dense, place, 7, impl="reference"))


def test_nothing_listed_and_no_clips(device: str) -> None:
    x, index = inputs((2, 5, 4, 8), torch.float32, device)
    assert token_gather(x, index[:, :0], impl="triton").shape == (2, 0, 8)
    assert token_scatter(x[:, :0], index[:, :0], 3, impl="triton").eq(0).all()
    assert token_scatter(x[:0, :4], index[:0], 3, impl="triton").shape == (0, 3, 8)


def test_refusals_say_why(device: str) -> None:
    x, index = inputs((1, 2, 2, 4), torch.float64, device)
    with pytest.raises(BackendUnavailableError, match="fp16, not"):
        token_gather(x, index, impl="triton")
    with pytest.raises(BackendUnavailableError, match="fp16, not"):
        token_scatter(x, index, 2, impl="triton")


def test_a_short_list_is_noticed(
    sabotage: Callable[..., None], device: str, assert_accurate: Callable[..., None]
) -> None:
    """Negative control: kernels told one row, or one list entry, too few."""
    from videomae_fast.kernels import token_gather as kernel

    x, index = inputs((2, 9, 9, 16), torch.float32, device, repeats=False)
    reference = token_scatter(x, index, 9, impl="reference")
    sabotage(kernel, "token_scatter_kernel", 4, lambda per_clip: per_clip - 1)
    with pytest.raises(AssertionError, match="error"):
        assert_accurate(token_scatter(x, index, 9, impl="triton"), reference, reference.double())
    sabotage(kernel, "token_gather_kernel", 3, lambda n_rows: n_rows - 1)
    out = token_gather(x, index, impl="triton")
    assert out[-1, -1].isnan().all()  # never written
