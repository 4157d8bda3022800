"""fp8_linear by emulation: its function, its errors against fp32, and what it asks of a GPU."""

from __future__ import annotations

from unittest.mock import patch

import pytest
import torch
from torch import Tensor

from videomae_fast.errors import BackendUnavailableError
from videomae_fast.ops import fp8_linear, quantize_rows
from videomae_fast.ops.fp8_linear import _scaled_mm
from videomae_fast.ops.quantize_rows import E4M3
from videomae_fast.ops.registry import REGISTRY, forced, why_not

pytestmark = pytest.mark.without_gpu
OPS = torch.ops.videomae_fast


def operands(
    rows: tuple[int, ...] = (2, 33), inner: int = 96, outer: int = 160
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """x, weight, bias and a gradient; tokens and channels of very different sizes."""
    torch.manual_seed(0)
    x = torch.randn(*rows, inner) * 10.0 ** torch.randint(-2, 3, (*rows, 1))
    weight = torch.randn(outer, inner) * 10.0 ** torch.randint(-2, 1, (outer, 1))
    grad = torch.randn(*rows, outer) * 10.0 ** torch.randint(-6, 1, (*rows, 1))
    return x, weight, torch.randn(outer), grad


def relative(found: Tensor, truth: Tensor) -> float:
    return float((found.detach().double() - truth.detach()).norm() / truth.detach().norm())


def dequantized(x: Tensor) -> Tensor:
    """In fp64, with scales found another way."""
    most = x.double().abs().amax(-1, keepdim=True)
    scale = 2.0 ** torch.ceil(torch.log2(most / 448))
    return (x.double() / scale).float().to(torch.float8_e4m3fn).double() * scale


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("inner", [1, 33, 96])
def test_its_products_are_those_of_rounded_operands(inner: int, dtype: torch.dtype) -> None:
    x, weight, bias, grad = operands(inner=inner)
    x, grad = x.to(dtype), grad.to(dtype)
    leaves = [t.requires_grad_() for t in (x, weight, bias)]
    out = fp8_linear(*leaves)
    got = torch.autograd.grad(out, leaves, grad)
    assert (out.dtype, [g.dtype for g in got]) == (dtype, [dtype, torch.float32, torch.float32])
    rounded = dequantized(weight.detach())
    rows = x.detach().double().flatten(0, 1), grad.double().flatten(0, 1)
    scale = quantize_rows(weight).scale.double()
    truth = [
        dequantized(x.detach()) @ rounded.t() + bias.detach().double(),
        dequantized(grad.double() * scale) @ (rounded / scale[:, None]),
        rows[1].t() @ rows[0],
        rows[1].sum(0),
    ]
    near = 1e-6 if dtype == torch.float32 else 4e-3
    for mine, exact in zip((out, *got), truth, strict=True):
        assert relative(mine, exact.view(mine.shape)) < near


def test_errors_against_the_exact_layer() -> None:
    """Of normal values: forward and the input's gradient within 4 %, the weight's exact.

    e4m3 rounds by at most 2⁻⁴, 2.6 % of a value in the root mean square; the errors of two
    operands are independent: 2.6 % · √2 = 3.7 % of a product, and as much of a sum of products.
    """
    x, weight, bias, grad = operands((4, 64), 256, 320)
    leaves = [t.requires_grad_() for t in (x, weight, bias)]
    got = torch.autograd.grad(out := fp8_linear(*leaves), leaves, grad)
    exact = [t.detach().double().requires_grad_() for t in leaves]
    truth = torch.nn.functional.linear(*exact)
    assert 0.02 < relative(out - bias, truth.detach() - exact[2].detach()) < 0.04
    for found, true, most in zip(
        got, torch.autograd.grad(truth, exact, grad.double()), (0.04, 1e-6, 1e-6), strict=True
    ):
        assert relative(found, true) < most
    # Each token's own error, small as the token may be: that is what a scale by row is for
    for found, true in ((out - bias, truth - exact[2]), (got[0], exact_input(grad, weight))):
        each = (found.double() - true).norm(dim=-1) / true.norm(dim=-1)
        assert each.max() < 0.06


def exact_input(grad: Tensor, weight: Tensor) -> Tensor:
    return grad.double() @ weight.detach().double()


def test_backward_sees_the_weight_that_forward_saw() -> None:
    """The gradient of x is that of the rounded layer: rounding the gradient is all that it adds."""
    x, weight, _, grad = operands()
    grad = grad.sign()  # which e4m3 has exactly, also times powers of two
    x.requires_grad_()
    (got,) = torch.autograd.grad(fp8_linear(x, weight), x, grad)
    torch.testing.assert_close(got.double(), grad.double() @ dequantized(weight))


def test_e4m3_is_nearer_than_e5m2_for_gradients() -> None:
    """Within a token's gradient the range of e4m3 is enough, and its third bit is worth more."""
    x, weight, _, grad = operands()
    x.requires_grad_()
    (got,) = torch.autograd.grad(fp8_linear(x, weight), x, grad)
    scale = grad.abs().amax(-1, keepdim=True) / 57344
    e5m2 = (grad / scale).to(torch.float8_e5m2).double() * scale.double()
    other = e5m2 @ dequantized(weight.t()).t()
    truth = exact_input(grad, weight)
    assert 1.3 * relative(got, truth) < relative(other, truth)


def test_what_is_quantized_already_is_taken() -> None:
    x, weight, bias, _ = operands()
    made = quantize_rows(x)
    with patch("videomae_fast.ops.quantize_rows._QUANTIZE", wraps=None) as never:
        never.side_effect = AssertionError
        with pytest.raises(AssertionError):
            fp8_linear(x, weight)
    assert torch.equal(fp8_linear(x, weight, bias, quantized=made), fp8_linear(x, weight, bias))
    doubled = made._replace(scale=2 * made.scale)
    torch.testing.assert_close(
        fp8_linear(x, weight, quantized=doubled), 2 * fp8_linear(x, weight, quantized=made)
    )


@pytest.mark.parametrize("bad", [float("inf"), float("nan")])
def test_what_is_not_finite_stays_visible(bad: float) -> None:
    """In a token: all of its outputs. In a weight: all outputs of its channel. In a gradient."""
    x, weight, _, grad = operands((6,), 32, 48)
    x[2, 3] = bad
    assert fp8_linear(x, weight).isnan().all(1).tolist() == [i == 2 for i in range(6)]
    x[2, 3], weight[7, 1] = 0.0, bad
    out = fp8_linear(x, weight)
    assert out.isnan().all(0).tolist() == [i == 7 for i in range(48)]
    weight[7, 1], grad[4, 5] = 0.0, bad
    leaves = x.requires_grad_(), weight.requires_grad_()
    of_x, of_weight = torch.autograd.grad(fp8_linear(*leaves), leaves, grad)
    assert of_x.isfinite().all(1).tolist() == [i != 4 for i in range(6)]
    assert of_weight.isfinite().all(1).tolist() == [i != 5 for i in range(48)]


def test_zeros_and_no_rows() -> None:
    weight = torch.randn(48, 32)
    assert not fp8_linear(torch.zeros(3, 32), weight).any()
    assert not fp8_linear(torch.randn(3, 32), torch.zeros(48, 32)).any()
    x = torch.zeros(2, 0, 32, requires_grad=True)
    out = fp8_linear(x, weight.requires_grad_())
    assert out.shape == (2, 0, 48)
    of_x, of_weight = torch.autograd.grad(out, (x, weight), out)
    assert of_x.shape == x.shape
    assert not of_weight.any()


def test_under_autocast_x_is_cast_and_the_weight_is_not() -> None:
    x, weight, bias, grad = operands()
    weight.requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        out = fp8_linear(x, weight, bias)
    assert torch.equal(out, fp8_linear(x.bfloat16(), weight, bias))
    out.backward(grad.bfloat16())
    assert weight.grad is not None
    assert weight.grad.dtype == torch.float32


def test_compiled_as_one_graph() -> None:
    x, weight, bias, grad = operands()
    leaves = [t.requires_grad_() for t in (x, weight, bias)]
    compiled = torch.compile(fp8_linear, backend="aot_eager", fullgraph=True)
    for one, other in zip(
        torch.autograd.grad(compiled(*leaves), leaves, grad),
        torch.autograd.grad(fp8_linear(*leaves), leaves, grad),
        strict=True,
    ):
        torch.testing.assert_close(one, other)


def test_wrong_shapes() -> None:
    x, weight, bias, _ = operands()
    with pytest.raises(ValueError, match=r"x must be \[..., in\] and weight \[out, in\]"):
        fp8_linear(x[..., :3], weight)
    with pytest.raises(ValueError, match=r"bias must be \[160\]"):
        fp8_linear(x, weight, bias[:3])
    with pytest.raises(ValueError, match=r"quantized must be e4m3 \[2, 33, 96\]"):
        fp8_linear(x, weight, quantized=quantize_rows(x[:1]))


def scales_by_row() -> bool:
    """Whether this torch's CPU has products with a scale for each row; 2.11's has not."""
    one = quantize_rows(torch.ones(16, 16))
    try:
        _scaled_mm(*one, *one, None, torch.bfloat16)
    except RuntimeError:
        return False
    return True


@pytest.mark.skipif(not scales_by_row(), reason="this torch's CPU has no scales by row")
@pytest.mark.parametrize("rows", [(1,), (2, 33), (3, 0)], ids=str)
def test_torchs_own_product_is_the_emulated_one(rows: tuple[int, ...]) -> None:
    """`torch._scaled_mm` as it is called on a GPU; torch has it on the CPU too."""
    x, weight, bias, grad = operands(rows)
    x, grad = x.bfloat16(), grad.bfloat16()
    found = []
    for name in ("scaled_mm", "reference"):
        forward, backward = (
            REGISTRY[f"fp8_linear{way}"].backends[name] for way in ("", "_backward")
        )
        out = forward.run(x, *quantize_rows(x), weight, bias)
        found.append([out, *backward.run(grad, x, weight, True, True)])
    for one, other in zip(*found, strict=True):
        assert (one.dtype, one.shape) == (other.dtype, other.shape)
        assert (one - other).norm() <= 4e-3 * other.norm()  # the CPU's rounds to bf16 twice


def test_operands_lie_as_a_gpu_wants_them() -> None:
    """torch's check of layouts, sizes and scales for CUDA, on tensors without values."""
    x, weight, bias, grad = (t.to("meta") for t in operands())
    x, grad = x.bfloat16(), grad.bfloat16()
    rows = x.to(E4M3), x.new_empty(x.shape[:-1], dtype=torch.float32)
    forward, backward = (
        REGISTRY[f"fp8_linear{way}"].backends["scaled_mm"] for way in ("", "_backward")
    )
    with patch("torch._meta_registrations.device_hint", return_value="cuda"):
        with forced("reference"):
            assert forward.run(x, *rows, weight, bias).shape == (2, 33, 160)
            assert backward.run(grad, x, weight, True, True)[0].shape == x.shape
        with pytest.raises(RuntimeError, match="Invalid scaling configuration"):
            _scaled_mm(rows[0][0], rows[1][0, :5], weight.to(E4M3), None, None, torch.bfloat16)


def test_what_it_asks_of_a_gpu() -> None:
    x, weight, _, _ = operands()
    with pytest.raises(BackendUnavailableError, match="needs CUDA tensors"):
        fp8_linear(x, weight, impl="scaled_mm")
    unfit = REGISTRY["fp8_linear"].backends["scaled_mm"].unfit
    assert unfit is not None

    def told(x: Tensor, weight: Tensor) -> str | None:
        return unfit(x, None, None, weight, None)

    with patch("torch.cuda.get_device_capability", return_value=(8, 0)):
        assert told(x, weight) == "torch._scaled_mm gives bf16, and x is torch.float32"
        half = x.bfloat16()
        assert "multiples of 16, not [150, 96]" in str(told(half, weight[:150]))
        assert "need a GPU of capability 8.9, and this one has 8.0" in str(told(half, weight))
    with patch("torch.cuda.get_device_capability", return_value=(9, 0)):
        assert told(half, weight) is None
    for name in ("quantize_rows", "add_layer_norm_fp8", "bias_gelu_fp8"):
        assert REGISTRY[name].backends["triton"].unfit is not None
    assert why_not("fp8_linear", "reference") is None
