"""Each op: against a truth written another way, backward by gradcheck, registration by opcheck."""

from __future__ import annotations

from importlib import import_module

import pytest
import torch
from torch.library import opcheck

from tests.support.op_cases import OF_A_BACKEND, opcheck_cases, possible_checks
from videomae_fast.errors import BackendUnavailableError
from videomae_fast.ops import (
    add_layer_norm,
    append_rows,
    attention,
    bias_gelu,
    decoder_assembly,
    linear,
    patch_gather,
    pixel_mse,
    token_gather,
    token_scatter,
)
from videomae_fast.ops.linear import packed_linear_gelu, packed_weight
from videomae_fast.ops.registry import REGISTRY, forced, native_missing

pytestmark = pytest.mark.without_gpu
OPS = torch.ops.videomae_fast
native = pytest.mark.skipif(native_missing() is not None, reason=str(native_missing()))


@pytest.mark.parametrize("impl", ["auto", "torch", "onednn", "reference"])
@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize(
    ("rows", "inner", "outer"), [((2, 3), 5, 7), ((4,), 33, 9), ((1, 1), 1, 1)]
)
def test_linear(rows, inner, outer, with_bias, impl):
    torch.manual_seed(0)
    x = torch.randn(*rows, inner, requires_grad=True)
    weight = torch.randn(outer, inner, requires_grad=True)
    bias = torch.randn(outer, requires_grad=True) if with_bias else None
    inputs = [t for t in (x, weight, bias) if t is not None]
    out = linear(x, weight, bias, impl=impl)
    grad = torch.randn(*rows, outer)
    got = torch.autograd.grad(out, inputs, grad)
    exact = [t.detach().double().requires_grad_() for t in inputs]
    truth = torch.nn.functional.linear(*exact)
    torch.testing.assert_close(out.double(), truth, rtol=1e-5, atol=1e-5)
    for a, b in zip(got, torch.autograd.grad(truth, exact, grad.double()), strict=True):
        torch.testing.assert_close(a.double(), b, rtol=1e-5, atol=1e-5)
    frozen = linear(x.detach(), weight, bias, impl=impl)
    (alone,) = torch.autograd.grad(frozen, weight, grad)
    torch.testing.assert_close(alone, got[1])


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="torch without oneDNN")
@pytest.mark.parametrize(("outer", "inner"), [(7, 5), (5, 7)])
def test_gradients_of_a_weight_by_each_library(outer, inner):
    """Which is taken is the processor's matter: with AVX-512 oneDNN's, else torch's."""
    torch.manual_seed(0)
    module = import_module("videomae_fast.ops.linear")
    grad, rows = torch.randn(9, outer), torch.randn(9, inner)
    for product in (module._transposed_product, module._onednn_transposed_product):
        out = product(grad, rows)
        assert out.is_contiguous()
        torch.testing.assert_close(out, torch.einsum("ro,ri->oi", grad, rows))


def test_linear_of_slices_and_strides():
    """A slice of a packed weight, and an input that lies transposed."""
    torch.manual_seed(0)
    x, weight = torch.randn(5, 3, 4).transpose(0, 1), torch.randn(12, 4)
    for impl in ("onednn", "torch"):
        out = linear(x, weight[4:], impl=impl)
        torch.testing.assert_close(out, x @ weight[4:].t())
    with pytest.raises(BackendUnavailableError, match="oneDNN takes fp32, not"):
        linear(x.bfloat16(), weight.bfloat16(), impl="onednn")
    with torch.autocast("cpu", torch.bfloat16):
        assert linear(x, weight).dtype == torch.bfloat16


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="torch without oneDNN")
@pytest.mark.parametrize("rows", [64, 7])
def test_linear_of_packed_weights(rows):
    """The same bits as of weights as they lie, whatever number of rows they were packed for."""
    torch.manual_seed(0)
    x, weight, bias = torch.randn(2, rows, 33), torch.randn(48, 33), torch.randn(48)
    packed = packed_weight(weight, 64)
    for given in (bias, None):
        plain = linear(x, weight, given, impl="onednn")
        assert torch.equal(linear(x, packed, given, impl="onednn"), plain)
    exact = torch.nn.functional.gelu(x.double() @ weight.double().t() + bias.double())
    found = packed_linear_gelu(x, packed, bias)
    torch.testing.assert_close(found.double(), exact, rtol=1e-5, atol=1e-5)
    weight.zero_()  # nothing is shared
    assert torch.equal(packed_linear_gelu(x, packed, bias), found)


@pytest.mark.parametrize("name", sorted(opcheck_cases()))
def test_registration(name):
    """All of torch's checks; of ops with e4m3 those that can work with it."""
    torch.manual_seed(0)
    checks = possible_checks(name)
    opcheck(getattr(OPS, name).default, opcheck_cases()[name], test_utils=checks)


@pytest.mark.parametrize("name", ["add_layer_norm_fp8", "bias_gelu_fp8"])
def test_compiled_with_e4m3_beside(name):
    """What opcheck can't: forward and gradients of a compiled graph, the same as in eager mode."""
    torch.manual_seed(0)
    op, args = getattr(OPS, name), opcheck_cases()[name]
    leaves = [each for each in args if isinstance(each, torch.Tensor) and each.requires_grad]

    def run(*args):
        out, *rest = op(*args)
        return out, rest[-2].float() * rest[-1][..., None]

    found = []
    for call in (run, torch.compile(run, backend="aot_eager", fullgraph=True)):
        out, rows = call(*args)
        found.append([out, rows, *torch.autograd.grad(out.square().sum(), leaves)])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other)


@native
@pytest.mark.parametrize("name", ["attention", "attention_backward"])
def test_registration_of_native_attention(name):
    """The other ops with a native backend take it above, where their impl is "auto"; symbols for
    sizes are the registration's, not a backend's."""
    torch.manual_seed(0)
    args = (*opcheck_cases()[name][:-1], "native")
    opcheck(getattr(OPS, name).default, args, test_utils=OF_A_BACKEND)


def test_every_op_is_checked():
    registered = {name.split("::")[1] for name in torch._C._dispatch_get_all_op_names()
                  if name.startswith("videomae_fast::")}  # fmt: skip
    registered -= {f"declared_by_a_test{way}" for way in ("", "_backward")}  # test_declare's
    assert registered == set(opcheck_cases())
    assert set(REGISTRY) <= registered


def test_gradients_in_float64(random_frames):
    torch.manual_seed(0)
    double = {"dtype": torch.float64, "requires_grad": True}
    x = torch.randn(2, 4, 3, **double)
    index = torch.tensor([[0, 3, 3], [1, 2, 0]], dtype=torch.int32)
    assert torch.autograd.gradcheck(lambda a: token_gather(a, index), (x,))
    assert torch.autograd.gradcheck(lambda a: token_scatter(a[:, :3], index, 4), (x,))
    token, table = torch.randn(3, **double), torch.randn(6, 3)
    seen = torch.tensor([[0, 1, 2, 3]] * 2, dtype=torch.int32)
    assert torch.autograd.gradcheck(
        lambda a, t: decoder_assembly(a, t, table, seen, index), (x, token)
    )
    shared = torch.randn(5, 3, **double)
    assert torch.autograd.gradcheck(lambda a, t: append_rows(a, t, index), (x, shared))
    scale, delta_bias = torch.randn(3, **double), torch.randn(3, **double)
    weight, bias, delta = *(torch.randn(3, **double) for _ in range(2)), torch.randn_like(x)
    assert torch.autograd.gradcheck(
        lambda a, d, w, b, e, s: add_layer_norm(
            a, d, w, b, delta_bias=e, scale=s, factor=torch.tensor([0.5, 2.0])
        ),
        (x, delta.requires_grad_(), weight, bias, delta_bias, scale),
    )
    assert torch.autograd.gradcheck(
        lambda a, d, w, b: add_layer_norm(a, d, w, b), (x, delta, weight, bias)
    )
    assert torch.autograd.gradcheck(lambda a, b: bias_gelu(a, b), (x, bias))
    frames = random_frames(2, 2, 4, 4)
    one = torch.zeros(2, 1, dtype=torch.int32)
    prediction = torch.randn(2, 1, 3 * 2 * 16, **double)
    assert torch.autograd.gradcheck(
        lambda p: pixel_mse(p, frames, one, torch.tensor([[0.5], [2.0]]), patch_size=4)[0],
        (prediction,),
    )
    q, k, v = (torch.randn(2, 3, 2, 4, **double) for _ in range(3))
    count = torch.tensor([3, 2], dtype=torch.int32)
    assert torch.autograd.gradcheck(
        lambda *a: attention(*a, key_count=count, impl="reference"), (q, k, v)
    )


def test_bad_arguments_are_errors(random_frames):
    frames, index = random_frames(2, 2, 16, 16), torch.zeros(2, 1, dtype=torch.int32)
    with pytest.raises(ValueError, match="index must be int32"):
        patch_gather(frames, index.long())
    with pytest.raises(ValueError, match=r"index must be \[B=2, K\]"):
        patch_gather(frames, index[:1])
    with pytest.raises(ValueError, match="prediction must be"):
        pixel_mse(torch.zeros(2, 1, 5), frames, index)
    with pytest.raises(ValueError, match="weight must be fp32"):
        pixel_mse(torch.zeros(2, 1, 1536), frames, index, torch.ones(2, 1).double())
    with pytest.raises(ValueError, match="does not fit key"):
        attention(torch.zeros(1, 2, 2, 4), *[torch.zeros(1, 2, 1, 4)] * 2)
    with pytest.raises(ValueError, match="rows per clip"):
        token_scatter(torch.zeros(2, 3, 4), index, 5)
    with pytest.raises(ValueError, match=r"table must be torch.float32 \[N, 4\]"):
        append_rows(torch.zeros(2, 3, 4), torch.zeros(5, 3), index)
    with pytest.raises(ValueError, match=r"table must be torch.float32 \[N, 4\]"):
        append_rows(torch.zeros(2, 3, 4), torch.zeros(5, 4).double(), index)
    with pytest.raises(ValueError, match=r"index must be \[B=2, K\]"):
        append_rows(torch.zeros(2, 3, 4), torch.zeros(5, 4), index[:1])
    with pytest.raises(ValueError, match=r"index must be \[B=3, K\]"):
        token_gather(torch.zeros(3, 3, 4), index)
    x, ones = torch.zeros(2, 3, 8), torch.ones(8)
    with pytest.raises(ValueError, match=r"bias must be \[8\], got \[9\]"):
        bias_gelu(x, torch.ones(9))
    with pytest.raises(ValueError, match=r"weight must be \[8\], got \[7\]"):
        add_layer_norm(x, x, torch.ones(7), ones)
    with pytest.raises(ValueError, match=r"factor must be \[2\], got \[3\]"):
        add_layer_norm(x, x, ones, ones, factor=torch.ones(3))
    with pytest.raises(ValueError, match=r"x and delta must be \[B, N, D\]"):
        add_layer_norm(x, x[:, 1:], ones, ones)
    with pytest.raises(BackendUnavailableError, match="takes fp32 and bf16, not torch"):
        add_layer_norm(x.double(), x.double(), ones, ones, impl="native")
    head = torch.zeros(2, 3, 2, 4)
    with pytest.raises(ValueError, match="query, key, value must be"):
        attention(head, head, head[:, 1:])
    with pytest.raises(BackendUnavailableError, match="takes int32 for key_count"):
        attention(head, head, head, key_count=torch.tensor([1, 2]), impl="native")
    with pytest.raises(ValueError, match="is not a positive multiple of 10"):
        patch_gather(frames, index, patch_size=10)
    with pytest.raises(BackendUnavailableError, match="has no backend 'magic'; it has auto"):
        token_gather(torch.zeros(2, 3, 4), index, impl="magic")
    with pytest.raises(BackendUnavailableError, match="fp16, not torch"):
        patch_gather(frames, index, dtype=torch.float64, impl="native")


@native
def test_native_checks_positions(random_frames):
    index = torch.tensor([[0, 7]], dtype=torch.int32)
    with pytest.raises(IndexError, match="token position 7"):
        append_rows(torch.zeros(1, 3, 4), torch.zeros(7, 4), index, impl="native")
    with pytest.raises(IndexError, match="token position 7"):
        patch_gather(random_frames(1, 2, 16, 16), index, impl="native")


def test_forcing_a_backend(random_frames):
    """Where an op has the forced backend it is used, or says why it can't be."""
    frames, index = random_frames(1, 2, 16, 16), torch.zeros(1, 1, dtype=torch.int32)
    with forced("native"), pytest.raises(BackendUnavailableError, match="fp16, not torch"):
        patch_gather(frames, index, dtype=torch.float64)
    with forced("magic"):
        patch_gather(frames, index, dtype=torch.float64)
    patch_gather(frames, index, dtype=torch.float64)


def test_forcing_a_backend_of_one_op(random_frames):
    frames, index = random_frames(1, 2, 16, 16), torch.zeros(1, 1, dtype=torch.int32)
    with forced("native", patch_gather="reference"):
        patch_gather(frames, index, dtype=torch.float64)  # native can't
    with forced("reference", patch_gather="native"):
        with pytest.raises(BackendUnavailableError, match="fp16, not torch"):
            patch_gather(frames, index, dtype=torch.float64)
        with forced("auto"):
            patch_gather(frames, index, dtype=torch.float64)
        with pytest.raises(BackendUnavailableError, match="fp16, not torch"):
            patch_gather(frames, index, dtype=torch.float64)
    with pytest.raises(ValueError, match="no op is called gather"), forced("auto", gather="native"):
        pass
