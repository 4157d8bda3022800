"""append_rows with every backend: against fp64 truths and the reference of a dtype."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from tests.support.backends import ALL, FLOATS, KERNELS, assert_accurate, with_dtypes
from videomae_fast.errors import BackendUnavailableError
from videomae_fast.ops import append_rows

pytestmark = pytest.mark.usefixtures("poisoned")
OPS = torch.ops.videomae_fast
# batch, own rows, appended, rows of the table, width: one of each, odd, wider than a tile, rows
# named more often than a tile is high, nothing of its own or appended
SHAPES = [(1, 1, 1, 1, 1), (2, 3, 5, 9, 192), (3, 4, 40, 5, 48), (2, 3, 0, 6, 20), (2, 0, 5, 6, 7)]


def inputs(shape: tuple[int, ...], dtype: torch.dtype, device: str) -> list[Tensor]:
    """x, table, index (positions repeat, some are not named)."""
    b, v, m, n, c = shape
    generator = torch.Generator().manual_seed(sum(shape))
    tensors = [
        torch.randn(b, v, c, generator=generator).to(dtype),
        torch.randn(n, c, generator=generator).to(dtype),
        torch.randint(max(1, n - 1), (b, m), generator=generator, dtype=torch.int32),
    ]
    return [tensor.to(device) for tensor in tensors]


@pytest.mark.parametrize("impl", KERNELS)
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_forward_copies(impl: str, shape: tuple[int, ...], dtype: torch.dtype, device: str) -> None:
    tensors = inputs(shape, dtype, device)
    out = append_rows(*tensors, impl=impl)
    assert torch.equal(out, append_rows(*tensors, impl="reference"))


@pytest.mark.parametrize(("impl", "dtype"), with_dtypes(FLOATS[:2]))
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_backward(impl: str, shape: tuple[int, ...], dtype: torch.dtype, device: str) -> None:
    b, v, m, n, c = shape
    _, _, index = inputs(shape, dtype, device)
    grad = torch.randn(b, v + m, c, generator=torch.Generator().manual_seed(1)).to(device, dtype)
    out = OPS.append_rows_backward(grad, index, n, impl)
    reference = OPS.append_rows_backward(grad, index, n, "reference")
    truth = OPS.append_rows_backward(grad.double(), index, n, "reference")
    assert_accurate(out, reference, truth, absolute=1e-5)
    assert torch.equal(out, OPS.append_rows_backward(grad, index, n, impl))


@pytest.mark.parametrize("impl", KERNELS)
def test_gradients_through_the_op(impl: str, device: str) -> None:
    """Of an expanded gradient too: that of a sum."""
    results = []
    for name in (impl, "reference"):
        x, table, index = inputs((2, 3, 5, 9, 24), torch.float32, device)
        x.requires_grad_()
        table.requires_grad_()
        out = append_rows(x, table, index, impl=name)
        (out.sum() + out.square().sum()).backward()
        results += [x.grad, table.grad]
    torch.testing.assert_close(results[:2], results[2:])
    grad = torch.ones((), device=device).expand(2, 8, 24)
    many = OPS.append_rows_backward(grad, index, 9, impl)
    assert torch.equal(many[:, 0], index.flatten().bincount(minlength=9).float())


@pytest.mark.parametrize("impl", KERNELS)
def test_layouts(impl: str, device: str) -> None:
    """Strided rows, table, index and gradient: the values of their dense copies."""
    x, table, index = inputs((2, 6, 8, 9, 32), torch.float32, device)
    for view in (x[:, ::2, :16], x[:, :3].transpose(1, 2)[:, ::11, :].repeat(1, 1, 6)[..., :16]):
        strided = [view, table[:, 16:], index[:, ::2]]
        dense = [tensor.contiguous() for tensor in strided]
        out = append_rows(*strided, impl=impl)
        assert torch.equal(out, append_rows(*dense, impl="reference"))
    grad = torch.randn(2, 20, 64, device=device)
    for view in (grad[:, ::2, 8:40], grad[:, :10].transpose(1, 2)[:, :10]):
        out = OPS.append_rows_backward(view, index[:, ::2], 9, impl)
        dense = [view.contiguous(), index[:, ::2].contiguous()]
        torch.testing.assert_close(out, OPS.append_rows_backward(*dense, 9, "reference"))


@pytest.mark.parametrize("impl", KERNELS)
def test_no_clips(impl: str, device: str) -> None:
    x, table, index = inputs((1, 2, 3, 4, 8), torch.float32, device)
    assert append_rows(x[:0], table, index[:0], impl=impl).shape == (0, 5, 8)
    grad = torch.randn(0, 5, 8, device=device)
    assert OPS.append_rows_backward(grad, index[:0], 4, impl).eq(0).all()


def test_refusals_say_why(interpreted: None, device: str) -> None:
    tensors = inputs((1, 2, 3, 4, 8), torch.float64, device)
    with pytest.raises(BackendUnavailableError, match="fp16, not"):
        append_rows(*tensors, impl="triton")
    with pytest.raises(BackendUnavailableError, match="fp16, not"):
        OPS.append_rows_backward(*tensors[::2], 4, "triton")


def test_a_wrong_stride_is_noticed(
    interpreted: None, sabotage: Callable[..., None], device: str
) -> None:
    """Negative control: kernels that take every clip for the first."""
    from videomae_fast.kernels import append_rows as kernel

    tensors = inputs((2, 3, 5, 9, 16), torch.float32, device)
    reference = append_rows(*tensors, impl="reference")
    sabotage(kernel, "append_rows_kernel", 7, lambda clip_stride: 0)
    with pytest.raises(AssertionError, match="error"):
        assert_accurate(append_rows(*tensors, impl="triton"), reference, reference.double())
    grad, index = torch.randn(2, 8, 16, device=device), tensors[2]
    reference = OPS.append_rows_backward(grad, index, 9, "reference")
    sabotage(kernel, "append_rows_backward_kernel", 7, lambda clip_stride: 0)
    out = OPS.append_rows_backward(grad, index, 9, "triton")
    with pytest.raises(AssertionError, match="error"):
        assert_accurate(out, reference, reference.double())


@pytest.mark.parametrize("impl", ALL)
@pytest.mark.parametrize("shape", [(2, 3, 4, 6, 5), (1, 0, 2, 3, 1), (3, 2, 0, 4, 7)], ids=str)
def test_by_hand(shape: tuple[int, ...], impl: str, device: str) -> None:
    """batch, own rows, appended, rows of the table, width; positions repeat, some are not named."""
    batch, own, appended, rows, width = shape
    torch.manual_seed(0)
    x = torch.randn(batch, own, width, device=device, requires_grad=True)
    table = torch.randn(rows, width, device=device, requires_grad=True)
    index = torch.randint(1, rows, (batch, appended), dtype=torch.int32, device=device)
    out = append_rows(x, table, index, impl=impl)
    truth = torch.cat([x, torch.stack([table[row.long()] for row in index])], 1)
    assert torch.equal(out, truth)
    grad = torch.randn_like(out)
    got = torch.autograd.grad(out, (x, table), grad)
    assert torch.equal(got[0], grad[:, :own])
    exact = torch.zeros(rows, width, dtype=torch.float64, device=device)
    for b in range(batch):
        for k in range(appended):
            exact[index[b, k]] += grad[b, own + k].double()
    torch.testing.assert_close(got[1].double(), exact, rtol=1e-5, atol=1e-6)
