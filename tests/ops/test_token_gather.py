"""token_gather and token_scatter with every backend."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from tests.support.backends import FLOATS, KERNELS, assert_accurate, same_bits, with_dtypes
from videomae_fast.errors import BackendUnavailableError
from videomae_fast.ops import token_gather, token_scatter

pytestmark = pytest.mark.usefixtures("poisoned")
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


@pytest.mark.parametrize("impl", KERNELS)
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_gather_copies(impl: str, shape: tuple[int, ...], dtype: torch.dtype, device: str) -> None:
    x, index = inputs(shape, dtype, device)
    out = token_gather(x, index, impl=impl)
    assert torch.equal(out, token_gather(x, index, impl="reference"))


@pytest.mark.parametrize("repeats", [False, True])
@pytest.mark.parametrize(("impl", "dtype"), with_dtypes(FLOATS[:2]))
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_scatter(
    impl: str, shape: tuple[int, ...], dtype: torch.dtype, repeats: bool, device: str
) -> None:
    b, n, k, d = shape
    k = k if repeats else min(n, k)
    _, index = inputs((b, n, k, d), dtype, device, repeats)
    x, _ = inputs((b, k, 1, d), dtype, device)
    out = token_scatter(x, index, n, impl=impl)
    reference = token_scatter(x, index, n, impl="reference")
    truth = token_scatter(x.double(), index, n, impl="reference")
    assert_accurate(out, reference, truth)
    assert torch.equal(out, token_scatter(x, index, n, impl=impl))


@pytest.mark.parametrize("impl", KERNELS)
def test_repeats_are_added_in_the_order_of_the_list(impl: str, device: str) -> None:
    """1e8 - 1e8 + 1 is 1, in any other order 0 in fp32."""
    x = torch.tensor([1e8, -1e8, 1.0], device=device).reshape(1, 3, 1)
    index = torch.tensor([[2, 2, 2]], dtype=torch.int32, device=device)
    assert token_scatter(x, index, 4, impl=impl).flatten().tolist() == [0, 0, 1, 0]


@pytest.mark.parametrize("impl", KERNELS)
def test_gradients_are_each_other(impl: str, device: str) -> None:
    x, index = inputs((2, 9, 12, 40), torch.float32, device)
    results = []
    for name in (impl, "reference"):
        leaf = x.clone().requires_grad_()
        rows = token_gather(leaf, index, impl=name)
        back = token_scatter(rows * rows, index, 9, impl=name)
        (back * x).sum().backward()
        assert leaf.grad is not None
        results.append(leaf.grad)
    torch.testing.assert_close(results[0], results[1])


@pytest.mark.parametrize("impl", KERNELS)
def test_layouts(impl: str, device: str) -> None:
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
        out = token_gather(view, place[:, ::2], impl=impl)
        assert torch.equal(out, token_gather(dense, place[:, ::2].contiguous(), impl="reference"))
        out = token_scatter(view, place, 7, impl=impl)
        torch.testing.assert_close(out, token_scatter(dense, place, 7, impl="reference"))


@pytest.mark.parametrize("impl", KERNELS)
def test_nothing_listed_and_no_clips(impl: str, device: str) -> None:
    x, index = inputs((2, 5, 4, 8), torch.float32, device)
    assert token_gather(x, index[:, :0], impl=impl).shape == (2, 0, 8)
    assert token_scatter(x[:, :0], index[:, :0], 3, impl=impl).eq(0).all()
    assert token_scatter(x[:0, :4], index[:0], 3, impl=impl).shape == (0, 3, 8)


def test_refusals_say_why(interpreted: None, device: str) -> None:
    x, index = inputs((1, 2, 2, 4), torch.float64, device)
    with pytest.raises(BackendUnavailableError, match="fp16, not"):
        token_gather(x, index, impl="triton")
    with pytest.raises(BackendUnavailableError, match="fp16, not"):
        token_scatter(x, index, 2, impl="triton")


def test_a_short_list_is_noticed(
    interpreted: None, sabotage: Callable[..., None], device: str
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


@pytest.mark.parametrize("dtype", [*FLOATS, torch.float64])
def test_the_reference_by_hand(dtype: torch.dtype) -> None:
    x = torch.randn(2, 7, 5).to(dtype)
    index = torch.tensor([[6, 0, 0], [1, 2, 3]], dtype=torch.int32)
    got = token_gather(x, index, impl="reference")
    assert torch.equal(got, torch.stack([x[b, index[b].long()] for b in range(2)]))
    back = token_scatter(got, index, 7, impl="reference")
    truth = torch.zeros(2, 7, 5, dtype=torch.float64)
    for b in range(2):
        for k in range(3):
            truth[b, index[b, k]] += got[b, k].double()
    torch.testing.assert_close(back, truth.to(dtype))


@pytest.mark.without_gpu
def test_the_librarys_bits_do_not_depend_on_the_thread_count() -> None:
    x, index = torch.randn(3, 500, 192), torch.randint(40, (3, 500)).int()
    same_bits(
        lambda: [token_gather(x, index, impl="native"), token_scatter(x, index, 50, impl="native")]
    )
