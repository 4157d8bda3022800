"""The kernels of appended rows against fp64 truths and the references of their dtype."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from videomae_fast.errors import BackendUnavailableError
from videomae_fast.ops import append_rows

OPS = torch.ops.videomae_fast
DTYPES = [torch.float32, torch.bfloat16, torch.float16]
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


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_forward_copies(shape: tuple[int, ...], dtype: torch.dtype, device: str) -> None:
    tensors = inputs(shape, dtype, device)
    out = append_rows(*tensors, impl="triton")
    assert torch.equal(out, append_rows(*tensors, impl="reference"))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_backward(
    shape: tuple[int, ...], dtype: torch.dtype, device: str, assert_accurate: Callable[..., None]
) -> None:
    b, v, m, n, c = shape
    _, _, index = inputs(shape, dtype, device)
    grad = torch.randn(b, v + m, c, generator=torch.Generator().manual_seed(1)).to(device, dtype)
    out = OPS.append_rows_backward(grad, index, n, "triton")
    reference = OPS.append_rows_backward(grad, index, n, "reference")
    truth = OPS.append_rows_backward(grad.double(), index, n, "reference")
    assert_accurate(out, reference, truth, absolute=1e-5)
    assert torch.equal(out, OPS.append_rows_backward(grad, index, n, "triton"))


def test_gradients_through_the_op(device: str) -> None:
    """Of an expanded gradient too: that of a sum."""
    results = []
    for impl in ("triton", "reference"):
        x, table, index = inputs((2, 3, 5, 9, 24), torch.float32, device)
        x.requires_grad_()
        table.requires_grad_()
        out = append_rows(x, table, index, impl=impl)
        (out.sum() + out.square().sum()).backward()
        results += [x.grad, table.grad]
    torch.testing.assert_close(results[:2], results[2:])
    grad = torch.ones((), device=device).expand(2, 8, 24)
    many = OPS.append_rows_backward(grad, index, 9, "triton")
    assert torch.equal(many[:, 0], index.flatten().bincount(minlength=9).float())


def test_layouts(device: str) -> None:
    """Strided rows, table, index and gradient: the values of their dense copies."""
    x, table, index = inputs((2, 6, 8, 9, 32), torch.float32, device)
    for view in (x[:, ::2, :16], x[:, :3].transpose(1, 2)[:, ::11, :].repeat(1, 1, 6)[..., :16]):
        strided = [view, table[:, 16:], index[:, ::2]]
        dense = [tensor.contiguous() for tensor in strided]
        out = append_rows(*strided, impl="triton")
        assert torch.equal(out, append_rows(*dense, impl="reference"))
    grad = torch.randn(2, 20, 64, device=device)
    for view in (grad[:, ::2, 8:40], grad[:, :10].transpose(1, 2)[:, :10]):
        out = OPS.append_rows_backward(view, index[:, ::2], 9, "triton")
        dense = [view.contiguous(), index[:, ::2].contiguous()]
        torch.testing.assert_close(out, OPS.append_rows_backward(*dense, 9, "reference"))


def test_no_clips(device: str) -> None:
    x, table, index = inputs((1, 2, 3, 4, 8), torch.float32, device)
    assert append_rows(x[:0], table, index[:0], impl="triton").shape == (0, 5, 8)
    grad = torch.randn(0, 5, 8, device=device)
    assert OPS.append_rows_backward(grad, index[:0], 4, "triton").eq(0).all()


def test_refusals_say_why(device: str) -> None:
    tensors = inputs((1, 2, 3, 4, 8), torch.float64, device)
    with pytest.raises(BackendUnavailableError, match="fp16, not"):
        append_rows(*tensors, impl="triton")
    with pytest.raises(BackendUnavailableError, match="fp16, not"):
        OPS.append_rows_backward(*tensors[::2], 4, "triton")


def test_a_wrong_stride_is_noticed(
    sabotage: Callable[..., None], device: str, assert_accurate: Callable[..., None]
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
    sabotage(kernel, "append_rows_backward_kernel", 6, lambda clip_stride: 0)
    out = OPS.append_rows_backward(grad, index, 9, "triton")
    with pytest.raises(AssertionError, match="error"):
        assert_accurate(out, reference, reference.double())
