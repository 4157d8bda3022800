"""LayerNorm and bias + GELU of the compiled library."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from videomae_fast.ops import _native

WIDTHS = [1, 7, 192, 384, 1408]


class Forward(NamedTuple):
    out: Tensor
    stream: Tensor
    mean: Tensor
    rstd: Tensor


class Gradients(NamedTuple):
    x: Tensor
    delta: Tensor
    weight: Tensor
    bias: Tensor
    delta_bias: Tensor
    scale: Tensor


def forward(x: Tensor, weight: Tensor, bias: Tensor, *branch: Tensor | None) -> Forward:
    """branch: delta, delta_bias, scale and factor."""
    delta, *others = branch or [None] * 4
    return Forward(*_native.add_layer_norm(x, delta, weight, bias, *others, 1e-6))


def backward(
    grad: Tensor, done: Forward, weight: Tensor, grad_stream: Tensor | None, *branch: Tensor | None
) -> Gradients:
    branch = branch or (None,) * 4
    saved = (done.stream, done.mean, done.rstd, weight)
    return Gradients(
        *_native.add_layer_norm_backward(grad, grad_stream, *saved, *branch, branch[1] is not None)
    )


def leaf(value: Tensor, dtype: torch.dtype) -> Tensor:
    return value.detach().clone().to(dtype).requires_grad_()


def assert_as_good(ours: Tensor, fp32: Tensor, exact: Tensor, slack: float = 1e-6) -> None:
    """The error is at most that of torch's fp32 computation plus a little."""
    scale = float(exact.abs().max())
    error = float((ours.double() - exact).abs().max())
    allowed = float((fp32.double() - exact).abs().max())
    assert error <= 1.5 * allowed + slack * max(scale, 1.0)


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("clips", [1, 3])
@pytest.mark.parametrize(
    "branch", ["none", "add", "bias", "scale", "bias, scale", "factor", "bias, scale, factor"]
)
def test_layer_norm(width: int, clips: int, branch: str, threads: int) -> None:
    random = torch.Generator().manual_seed(width)
    shape = (clips, 17, width)

    def draw(*size: int) -> Tensor:
        return torch.randn(*size, generator=random, dtype=torch.float64).float()

    x, weight, bias = draw(*shape) * 3 + 1, draw(width), draw(width)
    delta = None if branch == "none" else draw(*shape)
    delta_bias = draw(width) if "bias" in branch else None
    scale = draw(width) if "scale" in branch else None
    factor = torch.tensor([1.25, 0.0, 1.25][:clips]) if "factor" in branch else None
    grad_out, grad_stream = draw(*shape), draw(*shape)

    def compute(dtype: torch.dtype) -> list[Tensor]:
        given = (x, delta, weight, bias, delta_bias, scale)
        leaves = [None if v is None else leaf(v, dtype) for v in given]
        x_, delta_, weight_, bias_, delta_bias_, scale_ = leaves
        assert x_ is not None
        stream = x_
        if delta_ is not None:
            added = delta_ if delta_bias_ is None else delta_ + delta_bias_
            added = added if scale_ is None else added * scale_
            stream = x_ + (added if factor is None else added * factor.to(dtype)[:, None, None])
        out = F.layer_norm(stream, (width,), weight_, bias_, 1e-6)
        loss = (out * grad_out.to(dtype)).sum() + (stream * grad_stream.to(dtype)).sum()
        loss.backward()
        grads = [v.grad for v in leaves if v is not None and v.grad is not None]
        return [out.detach(), stream.detach(), *grads]

    exact, fp32 = compute(torch.float64), compute(torch.float32)
    branch_ = (delta, delta_bias, scale, factor)
    done = forward(x, weight, bias, *branch_)
    grads = backward(grad_out, done, weight, grad_stream, *branch_)
    shared = scale is None and factor is None
    assert (grads.delta.numel() == 0) == shared
    ours = [done.out, done.stream, grads.x]
    if delta is not None:
        ours.append(grads.x if shared else grads.delta)
    ours += [grads.weight, grads.bias]
    assert (grads.delta_bias.numel() == 0) == (delta_bias is None)
    assert (grads.scale.numel() == 0) == (scale is None)
    ours += [one for one in (grads.delta_bias, grads.scale) if one.numel()]
    assert len(ours) == len(exact)
    for a, b, c in zip(ours, fp32, exact, strict=True):
        assert_as_good(a, b, c)


def test_layer_norm_without_a_residual_gradient() -> None:
    x, grad, weight = torch.randn(5, 33), torch.randn(5, 33), torch.randn(33)
    done = forward(x, weight, torch.zeros(33))
    with_zero = backward(grad, done, weight, torch.zeros(5, 33))
    assert torch.equal(backward(grad, done, weight, None).x, with_zero.x)
    assert done.stream.data_ptr() == x.data_ptr()


def test_layer_norm_of_large_offsets_keeps_its_digits() -> None:
    """Two exact passes: E[x²] - E[x]² would be lost here."""
    x = torch.randn(4, 768, dtype=torch.float64).float() * 0.1 + 1000
    ours = forward(x, torch.ones(768), torch.zeros(768)).out
    exact = F.layer_norm(x.double(), (768,), eps=1e-6)
    assert_as_good(ours, F.layer_norm(x, (768,), eps=1e-6), exact, slack=1e-4)


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("biased", [True, False])
def test_bias_gelu(width: int, biased: bool, threads: int) -> None:
    random = torch.Generator().manual_seed(width)
    x = torch.randn(3, 21, width, generator=random) * 3
    grad = torch.randn(3, 21, width, generator=random)
    bias = torch.randn(width, generator=random) if biased else None

    def compute(dtype: torch.dtype) -> list[Tensor]:
        x_ = leaf(x, dtype)
        bias_ = None if bias is None else leaf(bias, dtype)
        out = F.gelu(x_ if bias_ is None else x_ + bias_)
        out.backward(grad.to(dtype))
        grads = [v.grad for v in (x_, bias_) if v is not None and v.grad is not None]
        return [out.detach(), *grads]

    grad_x, grad_bias = _native.bias_gelu_backward(grad, x, bias)
    ours = [_native.bias_gelu(x, bias), grad_x]
    assert (grad_bias.numel() == 0) == (bias is None)
    if bias is not None:
        ours.append(grad_bias)
    for a, b, c in zip(ours, compute(torch.float32), compute(torch.float64), strict=True):
        assert_as_good(a, b, c, slack=2e-7)


def test_gelu_is_accurate_everywhere() -> None:
    """Relative to x Phi(x) itself, in the far negative tail too, where 1 + erf(x) cancels."""
    x = torch.linspace(-12, 12, 100_001)
    exact = np.array([v * 0.5 * math.erfc(-v / math.sqrt(2)) for v in x.double().tolist()])
    ours = _native.bias_gelu(x[None], None)[0].double().numpy()
    body = np.abs(x.numpy()) <= 3
    np.testing.assert_allclose(ours[body], exact[body], rtol=1e-6, atol=1e-30)
    np.testing.assert_allclose(ours, exact, rtol=1.5e-5, atol=1e-30)
    slope = _native.bias_gelu_backward(torch.ones(1, len(x)), x[None], None)[0][0].double().numpy()
    v = x.double().numpy()
    phi = np.array([0.5 * math.erfc(-u / math.sqrt(2)) for u in v.tolist()])
    np.testing.assert_allclose(
        slope, phi + v * np.exp(-v * v / 2) / math.sqrt(2 * math.pi), rtol=0, atol=4e-7
    )


def test_gelu_of_extremes() -> None:
    x = torch.tensor([[-1e30, -50.0, -0.0, 0.0, 50.0, 1e30, float("inf"), float("nan")]])
    ours = _native.bias_gelu(x, None)[0]
    assert ours[:6].tolist() == pytest.approx([0, 0, 0, 0, 50, 1e30], rel=1e-6, abs=1e-6)
    assert ours[6] == float("inf")
    assert ours[7].isnan()
    slope = _native.bias_gelu_backward(torch.ones_like(x), x, None)[0][0]
    assert slope[:6].tolist() == pytest.approx([0, 0, 0.5, 0.5, 1, 1], abs=1e-6)
    assert slope[7].isnan()


def test_the_bits_do_not_depend_on_the_thread_count() -> None:
    x, grad = torch.randn(3000, 96), torch.randn(3000, 96)
    weight, bias = torch.randn(96), torch.randn(96)
    done = forward(x, weight, bias)
    before = torch.get_num_threads()
    results = []
    for count in (1, 2, 5):
        torch.set_num_threads(count)
        norm = backward(grad, done, weight, None)
        gelu_x, gelu_bias = _native.bias_gelu_backward(grad, x, bias)
        results.append((norm.x, norm.weight, norm.bias, gelu_x, gelu_bias))
    torch.set_num_threads(before)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


@pytest.mark.parametrize("rows", [0, 1])
def test_few_rows(rows: int) -> None:
    x, w = torch.randn(rows, 5), torch.ones(5)
    done = forward(x, w, w)
    grads = backward(x, done, w, None)
    assert done.out.shape == grads.x.shape == (rows, 5)
    torch.testing.assert_close(grads.bias, x.sum(0))
    torch.testing.assert_close(_native.bias_gelu(x, w), F.gelu(x + w))


@pytest.mark.parametrize("count", [2, 3, 7])
def test_every_row_has_a_thread(count: int) -> None:
    """Row counts that the threads do not divide, with work enough for all of them."""
    x = torch.randn(1003, 999)
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        ours = _native.bias_gelu(x, None)
    finally:
        torch.set_num_threads(before)
    assert torch.equal(ours, _native.bias_gelu(x, None))
    torch.testing.assert_close(ours, F.gelu(x))
