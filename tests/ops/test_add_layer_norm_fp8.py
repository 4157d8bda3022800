"""add_layer_norm_fp8: all that add_layer_norm gives, and its rows as quantize_rows has them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.support.backends import FLOATS, REFERENCE, TRITON
from videomae_fast.ops import add_layer_norm, add_layer_norm_fp8, quantize_rows

pytestmark = pytest.mark.usefixtures("poisoned")
IMPLS = [REFERENCE, TRITON]
SHAPES = [(1, 1, 1), (2, 3, 7), (1, 5, 300), (1, 1, 1408), (3, 4, 12)]


def bits(values: Tensor) -> Tensor:
    return values.view(torch.uint8)


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("options", [False, True], ids=["plain", "all options"])
def test_the_same_with_its_rows(shape, dtype, options, impl, device):
    torch.manual_seed(0)
    x, delta = (torch.randn(shape).to(dtype).to(device) for _ in range(2))
    weight, bias, delta_bias, scale = (torch.randn(shape[-1], device=device) for _ in range(4))
    more = {}
    if options:
        factor = torch.arange(shape[0], device=device) % 2 * 1.25
        more = {"delta_bias": delta_bias, "scale": scale, "factor": factor}
    out, stream, quantized = add_layer_norm_fp8(x, delta, weight, bias, impl=impl, **more)
    theirs = add_layer_norm(x, delta, weight, bias, impl=impl, **more)
    if device == "cpu":
        assert torch.equal(out, theirs[0])
    else:  # where a compiler may contract a product and a sum in one of two kernels
        torch.testing.assert_close(out, theirs[0])
    assert torch.equal(stream, theirs[1])
    expected = quantize_rows(out, impl="reference")
    assert torch.equal(bits(quantized.values), bits(expected.values))
    assert torch.equal(quantized.scale, expected.scale)


@pytest.mark.parametrize("impl", IMPLS)
def test_gradients_are_those_of_add_layer_norm(impl, device):
    torch.manual_seed(0)
    x = torch.randn(2, 6, 24, device=device)[:, ::2].requires_grad_()
    delta = torch.randn(24, 3, 2, device=device).permute(2, 1, 0).requires_grad_()
    vectors = [torch.randn(24, device=device, requires_grad=True) for _ in range(4)]
    more = {"delta_bias": vectors[2], "scale": vectors[3], "impl": impl}
    found = []
    for op in (add_layer_norm_fp8, add_layer_norm):
        out, stream, *_ = op(x, delta, vectors[0], vectors[1], **more)
        loss = (out * out).sum() + (stream * stream).sum()
        found.append(torch.autograd.grad(loss, (x, delta, *vectors)))
    for one, other in zip(*found, strict=True):
        if device == "cpu":
            assert torch.equal(one, other)
        else:
            torch.testing.assert_close(one, other)


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")  # inf - inf
def test_what_is_not_finite_stays_visible(impl, device):
    torch.manual_seed(0)
    x, zero, one = torch.randn(1, 4, 300), torch.zeros(300), torch.ones(300)
    x[0, 1, 299], x[0, 2, 7] = float("inf"), float("nan")
    x, zero, one = x.to(device), zero.to(device), one.to(device)
    _, _, quantized = add_layer_norm_fp8(x, torch.zeros_like(x), one, zero, impl=impl)
    assert quantized.scale.isnan().tolist() == [[False, True, True, False]]
    assert quantized.values.float().isnan().all(2).tolist() == [[False, True, True, False]]


@pytest.mark.parametrize("impl", IMPLS)
def test_equal_tokens_and_no_rows(impl, device):
    """Rows without variance are the bias alone: here zeros, whose scale is the least."""
    one, zero = torch.ones(8, device=device), torch.zeros(8, device=device)
    flat = torch.full((1, 2, 8), 3.0, device=device)
    _, _, quantized = add_layer_norm_fp8(flat, torch.zeros_like(flat), one, zero, impl=impl)
    assert quantized.scale.tolist() == [[2.0**-108] * 2]
    assert not quantized.values.float().any()
    out, _, quantized = add_layer_norm_fp8(flat[:0], flat[:0], one, zero, impl=impl)
    assert out.shape == quantized.values.shape == (0, 2, 8)
    with pytest.raises(ValueError, match=r"weight must be \[8\]"):
        add_layer_norm_fp8(flat, flat, one[:3], zero, impl=impl)
