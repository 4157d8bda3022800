"""bias_gelu with every backend: against fp64 and the reference."""

from __future__ import annotations

import math

import pytest
import torch

from tests.support.backends import FLOATS, KERNELS, assert_accurate, named, same_bits, with_dtypes
from videomae_fast.ops import bias_gelu

OPS = torch.ops.videomae_fast
pytestmark = pytest.mark.usefixtures("poisoned")
# One value, odd widths, a whole tile and more, more runs than programs.
SHAPES = [(1, 1), (3, 5, 7), (2, 9, 300), (1, 4, 768), (70, 12), (2, 33, 2, 5)]


def forward(x, bias, impl):
    return OPS.bias_gelu(x, bias, impl)


def backward(grad, x, bias, impl):
    return OPS.bias_gelu_backward(grad, x, bias, impl)


def exact(x, bias, grad):
    """gelu(x + bias) and the gradients of x and bias, in fp64."""
    x, bias = (t.double().requires_grad_() for t in (x, bias))
    z = x + bias
    out = z * torch.special.erfc(-z * math.sqrt(0.5)) / 2  # erfc does not cancel
    return (out.detach(), *torch.autograd.grad(out, (x, bias), grad.double()))


@pytest.mark.parametrize(("impl", "dtype"), with_dtypes(FLOATS[:2]))
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_against_truth(shape, impl, dtype, device):
    torch.manual_seed(0)
    x, grad = ((3 * torch.randn(shape)).to(dtype).to(device) for _ in range(2))
    bias = torch.randn(shape[-1], device=device)
    truth = exact(x, bias, grad)
    assert_accurate(forward(x, bias, impl), forward(x, bias, "reference"), truth[0])
    got, reference = backward(grad, x, bias, impl), backward(grad, x, bias, "reference")
    assert_accurate(got[0], reference[0], truth[1], absolute=2e-6)
    rows = x.numel() // shape[-1]
    assert_accurate(got[1], reference[1], truth[2], absolute=4e-6 * max(1, rows) ** 0.5)


@pytest.mark.filterwarnings("ignore:overflow:RuntimeWarning")  # the interpreter squares 1e30
@pytest.mark.parametrize("impl", KERNELS)
def test_everywhere(impl, device):
    """From far below to far above zero, also where the exponential underflows."""
    z = torch.cat([torch.linspace(-14, 14, 4001), torch.tensor([0.0, -40.0, 40.0, 1e30, -1e30])])
    z = z.to(device)
    zero = torch.zeros(len(z), device=device)
    got = forward(z[None], zero, impl)[0].double()
    slope = backward(torch.ones_like(z)[None], z[None], zero, impl)[0][0].double()
    truth, derivative, _ = exact(z[None], zero, torch.ones_like(z)[None])
    torch.testing.assert_close(got, truth[0], rtol=2e-5, atol=1e-37)
    torch.testing.assert_close(got.clamp(min=-1), truth[0].clamp(min=-1), rtol=2e-5, atol=2e-7)
    torch.testing.assert_close(slope, derivative[0], rtol=1e-6, atol=5e-7)


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")  # inf · 0, as in torch
def test_what_is_not_finite_stays_so(kernels, device):
    """As torch's on a GPU: infinity passes, -infinity and NaN are NaN."""
    z = torch.tensor([[float("inf"), float("-inf"), float("nan"), 1.0]], device=device)
    bias = torch.zeros(4, device=device)
    expected = torch.tensor([[float("inf"), float("nan"), float("nan"), 0.8413447]], device=device)
    torch.testing.assert_close(
        kernels.forward(named("bias_gelu", z, bias)), expected, equal_nan=True
    )
    slope = kernels.backward(named("bias_gelu_backward", torch.ones_like(z), z, bias))[0][0]
    assert slope[2:].isfinite().tolist() == [False, True]


@pytest.mark.parametrize("programs", [1, 5])
def test_however_many_programs_share_the_rows(programs, kernels, device, monkeypatch):
    """Runs of several tiles with a rest, where the last program has fewer rows."""
    monkeypatch.setattr(kernels, "programs_at_once", lambda *_: programs)
    torch.manual_seed(0)
    x, grad = (torch.randn(67, 300, device=device) for _ in range(2))
    bias = torch.randn(300, device=device)
    truth = exact(x, bias, grad)
    got = (
        kernels.forward(named("bias_gelu", x, bias)),
        *kernels.backward(named("bias_gelu_backward", grad, x, bias)),
    )
    theirs = (forward(x, bias, "reference"), *backward(grad, x, bias, "reference"))
    for mine, reference, true in zip(got, theirs, truth, strict=True):
        assert_accurate(mine, reference, true, absolute=3e-5)


@pytest.mark.parametrize("rows", [1, 15, 16, 17, 4096, 20_480])
@pytest.mark.parametrize("blocks", [1, 6, 24])
@pytest.mark.parametrize("most", [8, 1188])
def test_runs_cover_the_rows_in_one_wave(kernels, rows, blocks, most):
    runs, run = kernels._runs(rows, 16, blocks, most)
    assert (runs - 1) * run < rows <= runs * run
    assert run % 16 == 0
    assert runs * blocks <= max(most, blocks)


@pytest.mark.parametrize("impl", KERNELS)
def test_gradients_through_the_op(impl, device):
    """Not contiguous: a slice of a wider matmul, a transposed gradient."""
    torch.manual_seed(0)
    x = torch.randn(3, 4, 40, device=device)[..., 8:29].requires_grad_()
    bias = torch.randn(42, device=device)[::2].requires_grad_()
    grad = torch.randn(21, 4, 3, device=device).permute(2, 1, 0)
    got = {}
    for name in (impl, "reference"):
        out = bias_gelu(x, bias, impl=name)
        got[name] = (out, *torch.autograd.grad(out, (x, bias), grad))
    for mine, theirs in zip(got[impl], got["reference"], strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("impl", KERNELS)
def test_repeated_runs_are_equal_and_no_rows_is_fine(impl, device):
    torch.manual_seed(0)
    x, grad = (torch.randn(90, 33, device=device) for _ in range(2))
    bias = torch.randn(33, device=device)
    for a, b in zip(*(backward(grad, x, bias, impl) for _ in range(2)), strict=True):
        assert torch.equal(a, b)
    assert forward(x[:0], bias, impl).shape == (0, 33)
    assert backward(grad[:0], x[:0], bias, impl)[1].tolist() == [0.0] * 33


@pytest.mark.without_gpu
def test_the_librarys_bits_do_not_depend_on_the_thread_count():
    """Row counts that the threads do not divide, with work enough for all of them."""
    torch.manual_seed(0)
    x, grad = torch.randn(2, 1003, 999)
    bias = torch.randn(999)
    counts = (1, 2, 3, 5, 7)
    same_bits(lambda: [forward(x, bias, "native"), *backward(grad, x, bias, "native")], counts)


def test_a_wrong_kernel_is_caught(device):
    """The tanh form, which cuBLASLt's epilogue has, is not taken for the erf form."""
    torch.manual_seed(0)
    x = torch.randn(4, 64, device=device)
    bias = torch.zeros(64, device=device)
    broken = torch.nn.functional.gelu(x, approximate="tanh")
    truth, _, _ = exact(x, bias, x)
    with pytest.raises(AssertionError, match="error"):
        assert_accurate(broken, forward(x, bias, "reference"), truth)
