"""LayerNorm and bias + GELU of the compiled library."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.support import library

WIDTHS = [1, 7, 1408]


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
    return Forward(*library.add_layer_norm(x, delta, weight, bias, *others, 1e-6))


def backward(
    grad: Tensor, done: Forward, weight: Tensor, grad_stream: Tensor | None, *branch: Tensor | None
) -> Gradients:
    branch = branch or (None,) * 4
    saved = (done.stream, done.mean, done.rstd, weight)
    return Gradients(
        *library.add_layer_norm_backward(grad, grad_stream, *saved, *branch, branch[1] is not None)
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

    grad_x, grad_bias = library.bias_gelu_backward(grad, x, bias)
    ours = [library.bias_gelu(x, bias), grad_x]
    assert (grad_bias.numel() == 0) == (bias is None)
    if bias is not None:
        ours.append(grad_bias)
    for a, b, c in zip(ours, compute(torch.float32), compute(torch.float64), strict=True):
        assert_as_good(a, b, c, slack=2e-7)


def test_gelu_is_accurate_everywhere() -> None:
    """Relative to x Phi(x) itself, in the far negative tail too, where 1 + erf(x) cancels."""
    x = torch.linspace(-12, 12, 100_001)
    exact = np.array([v * 0.5 * math.erfc(-v / math.sqrt(2)) for v in x.double().tolist()])
    ours = library.bias_gelu(x[None], None)[0].double().numpy()
    body = np.abs(x.numpy()) <= 3
    np.testing.assert_allclose(ours[body], exact[body], rtol=1e-6, atol=1e-30)
    np.testing.assert_allclose(ours, exact, rtol=1.5e-5, atol=1e-30)
    slope = library.bias_gelu_backward(torch.ones(1, len(x)), x[None], None)[0][0].double().numpy()
    v = x.double().numpy()
    phi = np.array([0.5 * math.erfc(-u / math.sqrt(2)) for u in v.tolist()])
    np.testing.assert_allclose(
        slope, phi + v * np.exp(-v * v / 2) / math.sqrt(2 * math.pi), rtol=0, atol=4e-7
    )


def test_gelu_of_extremes() -> None:
    x = torch.tensor([[-1e30, -50.0, -0.0, 0.0, 50.0, 1e30, float("inf"), float("nan")]])
    ours = library.bias_gelu(x, None)[0]
    assert ours[:6].tolist() == pytest.approx([0, 0, 0, 0, 50, 1e30], rel=1e-6, abs=1e-6)
    assert ours[6] == float("inf")
    assert ours[7].isnan()
    slope = library.bias_gelu_backward(torch.ones_like(x), x, None)[0][0]
    assert slope[:6].tolist() == pytest.approx([0, 0, 0.5, 0.5, 1, 1], abs=1e-6)
    assert slope[7].isnan()


@pytest.mark.parametrize("rows", [0, 1])
def test_few_rows(rows: int) -> None:
    x, w = torch.randn(rows, 5), torch.ones(5)
    done = forward(x, w, w)
    grads = backward(x, done, w, None)
    assert done.out.shape == grads.x.shape == (rows, 5)
    torch.testing.assert_close(grads.bias, x.sum(0))
    torch.testing.assert_close(library.bias_gelu(x, w), F.gelu(x + w))
