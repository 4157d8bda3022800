"""bias_gelu_fp8: GELU as bias_gelu has it, and its rows as quantize_rows has them."""

from __future__ import annotations

import pytest
import torch

from tests.support.backends import FLOATS, REFERENCE, TRITON, assert_accurate, named
from videomae_fast.ops import bias_gelu, bias_gelu_fp8, quantize_rows

pytestmark = pytest.mark.usefixtures("poisoned")
IMPLS = [REFERENCE, TRITON]
SHAPES = [(1, 1), (3, 5, 7), (2, 9, 300), (2, 3, 2240), (70, 12)]


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_against_truth(shape, dtype, impl, device):
    torch.manual_seed(0)
    x = (3 * torch.randn(shape)).to(dtype).to(device)
    bias = torch.randn(shape[-1], device=device)
    out, quantized = bias_gelu_fp8(x, bias, impl=impl)
    exact = torch.nn.functional.gelu(x.double() + bias.double())
    assert_accurate(out, bias_gelu(x, bias, impl="reference"), exact)
    expected = quantize_rows(out, impl="reference")
    assert torch.equal(quantized.values.view(torch.uint8), expected.values.view(torch.uint8))
    assert torch.equal(quantized.scale, expected.scale)


@pytest.mark.parametrize("impl", IMPLS)
def test_gradients_are_those_of_bias_gelu(impl, device):
    """Of a slice; what is quantised has no gradient."""
    torch.manual_seed(0)
    x = torch.randn(3, 4, 40, device=device)[..., 8:29].requires_grad_()
    bias = torch.randn(21, device=device, requires_grad=True)
    out, quantized = bias_gelu_fp8(x, bias, impl=impl)
    assert not quantized.values.requires_grad
    assert not quantized.scale.requires_grad
    grad = torch.randn(21, 4, 3, device=device).permute(2, 1, 0)
    got = torch.autograd.grad(out, (x, bias), grad)
    theirs = torch.autograd.grad(bias_gelu(x, bias, impl=impl), (x, bias), grad)
    for one, other in zip(got, theirs, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")  # inf · 0, as in torch
def test_what_is_not_finite_stays_visible(impl, device):
    x = torch.randn(4, 30, device=device)
    x[1, 29], x[2, 0] = float("inf"), float("nan")
    _, quantized = bias_gelu_fp8(x, torch.zeros(30, device=device), impl=impl)
    assert quantized.scale.isnan().tolist() == [False, True, True, False]
    assert quantized.values.float().isnan().all(1).tolist() == [False, True, True, False]


@pytest.mark.parametrize("programs", [1, 3])
def test_however_many_programs_share_the_rows(programs, kernels, device, monkeypatch):
    monkeypatch.setattr(kernels, "programs_at_once", lambda *_: programs)
    torch.manual_seed(0)
    x, bias = torch.randn(67, 100, device=device), torch.randn(100, device=device)
    out, values, scale = kernels.forward(named("bias_gelu_fp8", x, bias))
    expected = quantize_rows(out, impl="reference")
    assert torch.equal(values.view(torch.uint8), expected.values.view(torch.uint8))
    assert torch.equal(scale, expected.scale)


@pytest.mark.parametrize("impl", IMPLS)
def test_no_rows(impl, device):
    bias = torch.zeros(6, device=device)
    out, quantized = bias_gelu_fp8(torch.zeros(0, 3, 6, device=device), bias, impl=impl)
    assert out.shape == quantized.values.shape == (0, 3, 6)
    assert quantized.scale.shape == (0, 3)
    with pytest.raises(ValueError, match=r"bias must be \[5\]"):
        bias_gelu_fp8(torch.zeros(2, 5, device=device), bias, impl=impl)
