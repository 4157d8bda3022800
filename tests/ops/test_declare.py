"""What a declaration makes: the way of eager calls, the registered op, and when it is taken."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd import forward_ad
from torch.library import opcheck
from torch.overrides import TorchFunctionMode
from torch.profiler import profile
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint

from tests.support.op_cases import opcheck_cases
from videomae_fast.errors import BackendUnavailableError, DerivativeError
from videomae_fast.ops import add_layer_norm, bias_gelu, linear, token_gather
from videomae_fast.ops._declare import Declared, Gradient, declare
from videomae_fast.ops.bias_gelu import _BIAS_GELU
from videomae_fast.ops.registry import REGISTRY, Backend, Op, why_not


@pytest.fixture(scope="module")
def scaled() -> Iterator[Declared]:
    """An op of two results with gradients, one without, and an optional argument."""

    def forward(x: Tensor, y: Tensor | None, power: int) -> tuple[Tensor, Tensor, Tensor]:
        total = x**power
        return total, x.t() if y is None else y * x, x.sum().detach()

    def backward(
        grad: Tensor, grad_product: Tensor | None, x: Tensor, y: Tensor | None, power: int,
        needs_y: bool,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        grad_x = power * grad * x ** (power - 1)
        if grad_product is not None:
            grad_x = grad_x + (grad_product.t() if y is None else grad_product * y)
        wanted = needs_y and grad_product is not None
        return grad_x, grad_product * x if wanted else x.new_zeros(x.shape)

    name = "declared_by_a_test"
    yield declare(
        name, forward,
        gradient=Gradient(backward, of=("x", "y"), results=("p", "q", "s"), differentiable=2),
    )  # fmt: skip
    for each in (name, f"{name}_backward"):
        del REGISTRY[each]


def leaves() -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    return tuple(torch.randn(3, 3, requires_grad=True) for _ in range(2))


@pytest.mark.parametrize("with_y", [True, False])
def test_both_ways_give_the_same(scaled: Declared, with_y: bool) -> None:
    x, y = leaves()
    args = (x, y if with_y else None, 3)
    inputs = [one for one in args if isinstance(one, Tensor)]
    eager, registered = scaled("auto", *args), scaled.registered(*args, "auto")
    assert type(eager[0].grad_fn).__name__ == "declared_by_a_testBackward"
    assert "GeneratedBackward" in type(registered[0].grad_fn).__name__
    truth = x**3, y * x if with_y else x.t(), None
    for results in (eager, registered):
        assert all(one.is_contiguous() for one in results)
        assert not results[2].requires_grad
        for chosen in ((0,), (1,), (0, 1)):
            total = sum(results[i].square().sum() for i in chosen)
            exact = sum(truth[i].square().sum() for i in chosen)
            kept = {"retain_graph": True, "allow_unused": True}
            got = torch.autograd.grad(total, inputs, **kept)
            for one, other in zip(got, torch.autograd.grad(exact, inputs, **kept), strict=True):
                torch.testing.assert_close(one, torch.zeros_like(x) if other is None else other)
    opcheck(scaled.registered, (*args, "auto"))


def test_frozen_inputs_get_no_gradient(scaled: Declared) -> None:
    x, y = leaves()
    scaled("auto", x, y.detach(), 2)[1].sum().backward()
    torch.testing.assert_close(x.grad, y.detach())
    assert not scaled("auto", x.detach(), y.detach(), 2)[0].requires_grad
    with torch.no_grad():
        assert not scaled("auto", x, y, 2)[0].requires_grad


class Seen(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.ops: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.ops.append(func.name())
        return func(*args, **(kwargs or {}))


def registered_calls(call: Callable[[], object]) -> list[str]:
    with Seen() as seen:
        call()
    return [name for name in seen.ops if "videomae_fast" in name]


def test_a_dispatch_mode_sees_the_ops_both_ways() -> None:
    x, bias = torch.randn(2, 3, requires_grad=True), torch.randn(3)
    names = registered_calls(lambda: bias_gelu(x, bias).sum().backward())
    assert names == ["videomae_fast::bias_gelu", "videomae_fast::bias_gelu_backward"]


@pytest.fixture
def not_registered(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise AssertionError("the registered op was called")

    monkeypatch.setattr(_BIAS_GELU, "registered", fail)


@pytest.mark.parametrize("grad", [True, False])
def test_eager_code_goes_around_the_dispatcher(grad: bool, not_registered: None) -> None:
    x, bias = torch.randn(2, 3, requires_grad=grad), torch.nn.Parameter(torch.randn(3))
    assert bias_gelu(x, bias).shape == (2, 3)
    with torch.inference_mode():
        assert bias_gelu(x, bias).shape == (2, 3)
    out = checkpoint(bias_gelu, x, bias, use_reentrant=False)
    out.sum().backward()
    assert bias.grad is not None


class Subclass(Tensor):
    pass


class Functions(TorchFunctionMode):
    def __torch_function__(self, func, types, args=(), kwargs=None):
        return func(*args, **(kwargs or {}))


def test_whoever_watches_sees_the_registered_op(not_registered: None) -> None:
    x, bias = torch.randn(2, 3), torch.randn(3)

    def fake() -> Tensor:
        with FakeTensorMode():
            return bias_gelu(torch.empty(2, 3), torch.empty(3))

    def dual() -> Tensor:
        with forward_ad.dual_level():
            return bias_gelu(forward_ad.make_dual(x, x), bias)

    def within(context) -> Callable[[], Tensor]:
        def call() -> Tensor:
            with context:
                return bias_gelu(x, bias)

        return call

    for watched in (
        fake,
        dual,
        within(Functions()),
        within(Seen()),
        within(profile()),
        lambda: torch.func.vmap(bias_gelu, (0, None))(x, bias),
        lambda: torch.jit.trace(bias_gelu, (x, bias), check_trace=False),
        lambda: bias_gelu(x.as_subclass(Subclass), bias),
        lambda: bias_gelu(x.to("meta"), bias.to("meta")),
    ):
        with pytest.raises(AssertionError, match="the registered op was called"):
            watched()


def test_a_second_derivative_is_refused_in_words() -> None:
    x, bias = torch.randn(2, 3, requires_grad=True), torch.randn(3, requires_grad=True)
    (grad,) = torch.autograd.grad(bias_gelu(x, bias).sum(), x, create_graph=True)
    with pytest.raises(DerivativeError, match="bias_gelu has no second derivative"):
        grad.sum().backward()
    index = torch.tensor([[0, 2]], dtype=torch.int32)
    rows = torch.randn(1, 3, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(lambda one: token_gather(one, index) ** 2, (rows,))


def test_the_normalised_result_alone_or_the_stream_alone() -> None:
    """A gradient that isn't there counts as zeros."""
    x, delta = torch.randn(2, 3, 8, requires_grad=True), torch.randn(2, 3, 8, requires_grad=True)
    ones = torch.ones(8, requires_grad=True)
    for chosen in (0, 1):
        out = add_layer_norm(x, delta, ones, ones)[chosen]
        got = torch.autograd.grad(out.square().sum(), (x, delta), retain_graph=True)
        total = x + delta
        truth = (
            torch.nn.functional.layer_norm(total, (8,), ones, ones, 1e-6) if chosen == 0 else total
        )
        for one, other in zip(
            got, torch.autograd.grad(truth.square().sum(), (x, delta)), strict=True
        ):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_every_op_has_one_way_for_each_backend() -> None:
    into = {"crop_resize_into", "augmented_views_into"}
    assert set(opcheck_cases()) - set(REGISTRY) == {"gradient_root", *into}
    assert all("reference" in op.backends for op in REGISTRY.values())


def test_the_order_and_the_reasons() -> None:
    def never(x: Tensor) -> str | None:
        return "it is Sunday"

    op = Op("x", {
        "gpu": Backend(abs, "the GPU", "cuda"),
        "missing": Backend(abs, "it", "cpu", missing=lambda: "not here"),
        "held": Backend(abs, "it", held_back=lambda: "it is slow"),
        "half": Backend(abs, "it", dtypes=(torch.float16,)),
        "unfit": Backend(abs, "it", unfit=never),
        "all": Backend(abs),
        "behind": Backend(abs),
    })  # fmt: skip
    assert op.order("cpu") == {
        "missing": "not here", "held": "it is slow", "half": None, "unfit": None, "all": None,
    }  # fmt: skip
    assert list(op.order("cuda")) == ["gpu"]
    x = torch.zeros(1)
    assert op.pick("auto", (x,)) == "all"
    assert op.pick("auto", (x.half(),)) == "half"
    assert op.pick("held", (x,)) == "held"
    for impl, reason in (
        ("gpu", "the GPU needs CUDA tensors, not cpu"), ("missing", "not here"),
        ("half", "it takes fp16, not torch.float32"), ("unfit", "it is Sunday"),
    ):  # fmt: skip
        with pytest.raises(
            BackendUnavailableError, match=f"x: backend '{impl}' can't run: {reason}"
        ):
            op.choose(impl, x)
    alone = Op("y", {"gpu": Backend(abs, "the GPU", "cuda")})
    with pytest.raises(
        BackendUnavailableError, match="no backend of y can run: gpu: the GPU needs"
    ):
        alone.choose("auto", x)


def test_why_not_by_name() -> None:
    x = torch.zeros(2, 3, dtype=torch.float64)
    assert "takes fp32 and bf16, not torch.float64" in str(why_not("bias_gelu", "native", x, x[0]))
    assert why_not("bias_gelu", "reference", x, x[0]) is None
    assert why_not("bias_gelu", "reference") is None


def test_composite_backends_are_called_as_they_are() -> None:
    x, weight = torch.randn(2, 3, requires_grad=True), torch.randn(4, 3)
    assert type(linear(x, weight, impl="torch").grad_fn).__name__ != "linearBackward"
    assert type(linear(x, weight, impl="reference").grad_fn).__name__ == "linearBackward"
    with pytest.raises(BackendUnavailableError, match="has no backend 'torch'"):
        torch.ops.videomae_fast.linear(x, weight, None, "torch")
