"""add_layer_norm with every backend: against fp64 and the reference, any width, layout, dtype."""

from __future__ import annotations

from dataclasses import replace
from importlib import import_module

import pytest
import torch
import torch.nn.functional as F

from tests.support import library
from tests.support.backends import (
    ALL,
    FLOATS,
    KERNELS,
    assert_accurate,
    doubled,
    named,
    same_bits,
    with_dtypes,
)
from videomae_fast.ops import add_layer_norm

OPS = torch.ops.videomae_fast
pytestmark = pytest.mark.usefixtures("poisoned")
# Clips, tokens, width: one value, odd widths, chunks with and without a rest, several programs.
SHAPES = [(1, 1, 1), (2, 3, 5), (2, 21, 192), (3, 5, 88), (1, 9, 768), (1, 5, 1408), (2, 70, 40)]


def forward(arguments, impl):
    return OPS.add_layer_norm(*arguments, impl)


def backward(arguments, impl):
    return OPS.add_layer_norm_backward(*arguments, impl)


def inputs(shape, dtype, device, *, scaled, dropped, biased):
    """Arguments of the forward launcher, LayerNorm's and the branch's vectors in fp32."""
    torch.manual_seed(0)
    clips, _, width = shape
    x, delta = ((torch.randn(shape) * 2 + 1).to(dtype) for _ in range(2))
    weight, bias, delta_bias, scale = torch.randn(4, width).unbind()
    tensors = (
        x, delta, weight, bias,
        delta_bias if biased else None,
        scale if scaled else None,
        torch.arange(clips) * 1.5 if dropped else None,
    )  # fmt: skip
    return (*(None if t is None else t.to(device) for t in tensors), 1e-6)


@pytest.mark.parametrize(
    ("impl", "dtype", "scaled", "dropped", "biased"),
    [
        *(pytest.param(*case.values, True, True, True, marks=case.marks, id=case.id)
            for case in with_dtypes(FLOATS[:2])),
        *(pytest.param(*impl.values, torch.float32, *branch, marks=impl.marks)
          for impl in KERNELS for branch in ((False, False, True), (True, False, False))),
    ],
)  # fmt: skip
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_against_truth(shape, dtype, scaled, dropped, biased, impl, device):
    arguments = inputs(shape, dtype, device, scaled=scaled, dropped=dropped, biased=biased)
    reference = forward(arguments, "reference")
    got = forward(arguments, impl)
    exact = forward(doubled(arguments), "reference")
    assert_accurate(got[1], reference[1], exact[1])
    # The norm is that of the stream as stored, so the truth starts from there.
    nothing, rest = torch.zeros_like(arguments[1]), (None, None, None, 1e-6)
    alone = (got[1], nothing, *arguments[2:4], *rest)
    exact, mine = forward(doubled(alone), "reference"), forward(alone, "reference")
    for k in (0, 2, 3):
        absolute = 2e-6
        if device != "cpu":  # whose root and division are off by up to 3 units in the last place
            absolute += 4e-7 * float(exact[k].abs().max())
        assert_accurate(got[k], mine[k], exact[k], absolute=absolute)

    grad_out, grad_stream = (torch.randn(shape).to(dtype).to(device) for _ in range(2))
    residual = grad_stream if biased else None
    saved = (grad_out, residual, *got[1:], arguments[2], arguments[1], *arguments[4:7], biased)
    exact = backward(doubled(saved), "reference")
    for k, (mine, theirs, true) in enumerate(
        zip(backward(saved, impl), backward(saved, "reference"), exact, strict=True)
    ):
        assert mine.shape == theirs.shape, k
        if mine.numel():
            absolute = 8e-6 * (shape[0] * shape[1]) ** 0.5 + 4e-6
            if shape[2] == 1:  # where rstd is 1000
                absolute *= 10
            assert_accurate(mine, theirs, true, absolute=absolute)


@pytest.mark.parametrize("impl", KERNELS)
def test_gradients_through_the_op(impl, device):
    """Not contiguous: every other token of x, a transposed delta, an expanded gradient."""
    torch.manual_seed(0)
    x = torch.randn(2, 6, 24, device=device)[:, ::2].requires_grad_()
    delta = torch.randn(24, 3, 2, device=device).permute(2, 1, 0).requires_grad_()
    vectors = [torch.randn(24, device=device, requires_grad=True) for _ in range(4)]
    factor = torch.tensor([0.0, 2.0], device=device)
    got = {}
    for name in (impl, "reference"):
        out, stream = add_layer_norm(
            x, delta, vectors[0], vectors[1], delta_bias=vectors[2], scale=vectors[3],
            factor=factor, impl=name,
        )  # fmt: skip
        loss = out.sum() + (stream * stream).sum()
        got[name] = (out, stream, *torch.autograd.grad(loss, (x, delta, *vectors)))
    for mine, theirs in zip(got[impl], got["reference"], strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize("impl", KERNELS)
def test_repeated_runs_are_equal(impl, device):
    dtype = torch.bfloat16
    arguments = inputs((3, 40, 96), dtype, device, scaled=True, dropped=True, biased=True)
    first, second = forward(arguments, impl), forward(arguments, impl)
    grad = torch.randn(3, 40, 96).to(dtype).to(device)
    saved = (grad, None, *first[1:], arguments[2], arguments[1], *arguments[4:7], True)
    for a, b in (
        *zip(first, second, strict=True),
        *zip(*(backward(saved, impl) for _ in range(2)), strict=True),
    ):
        assert torch.equal(a, b)


@pytest.mark.parametrize("programs", [1, 3])
def test_however_many_programs_share_the_rows(programs, kernels, device, monkeypatch):
    """Runs of several tiles with a rest, where the last program has fewer rows."""
    monkeypatch.setattr(kernels, "programs_at_once", lambda *_: programs)
    arguments = inputs((2, 17, 200), torch.float32, device, scaled=True, dropped=True, biased=True)
    out, stream, mean, rstd = kernels.forward(named("add_layer_norm", *arguments))
    grads = torch.randn(2, 2, 17, 200).to(device).unbind()
    saved = (*grads, stream, mean, rstd, arguments[2], arguments[1], *arguments[4:7], True)
    got = (out, stream, mean, rstd, *kernels.backward(named("add_layer_norm_backward", *saved)))
    assert_all = zip(
        got,
        (*forward(arguments, "reference"), *backward(saved, "reference")),
        (*forward(doubled(arguments), "reference"), *backward(doubled(saved), "reference")),
        strict=True,
    )
    for mine, theirs, true in assert_all:
        assert_accurate(mine, theirs, true, absolute=1e-4)


@pytest.mark.parametrize(
    "launch",
    [
        {"keep_weight": True},
        {"backward_stages": 3},
        {"backward_stages": 2, "backward_lane_values": 64, "backward_warps": 8},
    ],
    ids=str,
)
@pytest.mark.parametrize("width", [200, 768])
def test_rows_that_are_loaded_ahead(launch, width, kernels, device, monkeypatch):
    """Of 16-bit types without LayerScale: the weight stays in registers, rows in more warps."""
    monkeypatch.setattr(kernels, "LAUNCH", replace(kernels.LAUNCH, **launch))
    monkeypatch.setattr(kernels, "programs_at_once", lambda *_: 3)
    monkeypatch.setattr(columns := import_module("videomae_fast.kernels.columns"), "LAUNCH",
                        replace(columns.LAUNCH, rows=512, columns=16, num_warps=8))  # fmt: skip
    given = inputs((2, 17, width), torch.bfloat16, device, scaled=False, dropped=True, biased=True)
    out = forward(given, "reference")
    grads = torch.randn(2, 2, 17, width).to(device, torch.bfloat16).unbind()
    saved = (*grads, *out[1:], given[2], given[1], *given[4:7], True)
    theirs, exact = backward(saved, "reference"), backward(doubled(saved), "reference")
    for mine, reference, true in zip(
        kernels.backward(named("add_layer_norm_backward", *saved)), theirs, exact, strict=True
    ):
        assert_accurate(mine, reference, true, absolute=1e-4)


@pytest.mark.parametrize("apart", [0, 24, 40], ids=["one row for all", "dense", "wider"])
def test_rows_lie_where_strides_say(apart, kernels, device):
    """Backward takes rows that are not dense in place, the same row many times included."""
    torch.manual_seed(0)
    arguments = inputs((2, 7, 24), torch.float32, device, scaled=True, dropped=False, biased=True)
    _, stream, mean, rstd = kernels.forward(named("add_layer_norm", *arguments))
    saved = (stream, mean, rstd, arguments[2], arguments[1], *arguments[4:7], True)
    storage = torch.randn(14 * 40, device=device)
    grad = storage.as_strided((2, 7, 24), (7 * apart, apart, 1))
    got = kernels.backward(named("add_layer_norm_backward", grad, None, *saved))
    for mine, theirs in zip(
        got,
        kernels.backward(named("add_layer_norm_backward", grad.contiguous(), None, *saved)),
        strict=True,
    ):
        assert torch.equal(mine, theirs)
    reference = backward((grad, None, *saved), "reference")
    torch.testing.assert_close(got[0], reference[0], rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize("impl", KERNELS)
def test_no_rows(impl, device):
    arguments = inputs((0, 4, 8), torch.float32, device, scaled=True, dropped=False, biased=True)
    got = forward(arguments, impl)
    assert got[0].shape == (0, 4, 8)
    saved = (got[0], None, *got[1:], arguments[2], arguments[1], *arguments[4:7], True)
    for gradient in backward(saved, impl)[2:]:
        assert gradient.tolist() == [0] * 8


@pytest.mark.parametrize("width", [1, 5, 192, 384, 512, 768, 1000, 1024, 1280, 1408, 5000])
@pytest.mark.parametrize("itemsize", [2, 4])
def test_tiles_cover_the_row_without_much_waste(kernels, width, itemsize):
    for cut in (
        kernels.forward_tiling(width, itemsize),
        kernels.backward_tiling(width, itemsize, 3, scaled=False),
        kernels.backward_tiling(width, itemsize, 4, scaled=True),
    ):
        padded = cut.chunk * cut.chunks
        assert cut.rows >= 1
        assert cut.warps in (1, 2, 4)
        assert width <= padded
        assert (cut.rows * cut.chunk) & (cut.rows * cut.chunk - 1) == 0
        assert padded <= max(1.2 * width, 16)


def test_a_wrong_kernel_is_caught(kernels, device, monkeypatch):
    """Rows of the last program left out of the sums, as a wrong end of its run would."""
    arguments = inputs((2, 40, 96), torch.float32, device, scaled=False, dropped=False, biased=True)
    out, stream, mean, rstd = kernels.forward(named("add_layer_norm", *arguments))
    saved = (out, None, stream, mean, rstd, arguments[2], None, None, None, None, True)
    exact = backward(doubled(saved), "reference")
    reference = backward(saved, "reference")
    right = kernels.sum_columns
    monkeypatch.setattr(kernels, "sum_columns", lambda p, outs: right(p[:, :-1].contiguous(), outs))
    broken = kernels.backward(named("add_layer_norm_backward", *saved))
    with pytest.raises(AssertionError, match="error"):
        assert_accurate(broken[2], reference[2], exact[2], absolute=1e-4)


def vectors(width, dtype, *, scaled):
    """LayerNorm's weight and bias, a branch's bias and LayerScale."""
    own = [torch.randn(width).to(dtype) for _ in range(4)]
    return own if scaled else [*own[:3], None]


@pytest.mark.parametrize("impl", ALL)
@pytest.mark.parametrize("dropped", [False, True])
@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("shape", [(2, 3, 5), (3, 5, 88)], ids=str)
def test_values_and_gradients(shape, scaled, dropped, impl, device):
    torch.manual_seed(0)
    x, delta = torch.randn(shape) + 3, torch.randn(shape)
    given = (x, delta, *vectors(shape[-1], torch.float32, scaled=scaled))
    given = [None if t is None else t.to(device).requires_grad_() for t in given]
    x, delta, weight, bias, delta_bias, scale = given
    factor = torch.tensor([0.0, 2.0, 1.5], device=device)[: shape[0]] if dropped else None
    tensors = [t for t in given if t is not None]
    out, stream = add_layer_norm(
        x, delta, weight, bias, delta_bias=delta_bias, scale=scale, factor=factor, impl=impl
    )
    grads = torch.randn_like(out), torch.randn_like(stream)
    got = torch.autograd.grad((out, stream), tensors, grads)

    exact = [t.detach().double().requires_grad_() for t in tensors]
    branch = exact[1] + exact[4]
    if scaled:
        branch = branch * exact[5]
    if factor is not None:
        branch = branch * factor.double()[:, None, None]
    total = exact[0] + branch
    normal = F.layer_norm(total, shape[-1:], exact[2], exact[3], 1e-6)
    torch.testing.assert_close(out.double(), normal, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(stream.double(), total, rtol=1e-5, atol=1e-5)
    truth = torch.autograd.grad((normal, total), exact, [g.double() for g in grads])
    for a, b in zip(got, truth, strict=True):
        torch.testing.assert_close(a.double(), b, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(dtype):
    """The statistics are those of the rounded stream, in fp32: one rounding of the result."""
    torch.manual_seed(0)
    x, delta = (torch.randn(2, 9, 96).to(dtype) for _ in range(2))
    weight, bias, delta_bias, _ = vectors(96, torch.float32, scaled=False)
    out, stream = add_layer_norm(x, delta, weight, bias, delta_bias=delta_bias)
    assert out.dtype == stream.dtype == dtype
    exact = F.layer_norm(stream.float(), (96,), weight, bias, 1e-6)
    torch.testing.assert_close(out, exact.to(dtype))


@pytest.mark.parametrize("impl", ALL)
def test_large_offsets_keep_their_digits(impl, device):
    """Two exact passes: E[x²] - E[x]² would be lost here."""
    x = (torch.randn(1, 4, 768, dtype=torch.float64).float() * 0.1 + 1000).to(device)
    one, zero = torch.ones(768, device=device), torch.zeros(768, device=device)
    ours = add_layer_norm(x, torch.zeros_like(x), one, zero, impl=impl)[0]
    exact = F.layer_norm(x.double(), (768,), eps=1e-6)
    allowed = (F.layer_norm(x, (768,), eps=1e-6).double() - exact).abs().max()
    assert (ours.double() - exact).abs().max() <= 1.5 * allowed + 1e-3


@pytest.mark.without_gpu
@pytest.mark.parametrize("rows", [0, 1, 51])
def test_the_library_without_a_branch(rows):
    """A norm alone, with a gradient of the residual stream and without one."""
    x, grad, weight = torch.randn(rows, 33), torch.randn(rows, 33), torch.randn(33)
    bias = torch.randn(33)
    out, stream, *statistics = library.add_layer_norm(x, None, weight, bias, *[None] * 3, 1e-6)
    assert stream.data_ptr() == x.data_ptr()

    def backward(grad_stream):
        rest = (stream, *statistics, weight, *[None] * 4, False)
        return library.add_layer_norm_backward(grad, grad_stream, *rest)

    assert torch.equal(backward(None)[0], backward(torch.zeros(rows, 33))[0])
    other = torch.randn(rows, 33)
    grad_x, _, grad_weight, grad_bias, *_ = backward(other)
    exact = [t.double().requires_grad_() for t in (x, weight, bias)]
    normal = F.layer_norm(exact[0], (33,), *exact[1:], 1e-6)
    loss = (normal * grad.double()).sum() + (exact[0] * other.double()).sum()
    truth = (normal, *torch.autograd.grad(loss, exact))
    for mine, true in zip((out, grad_x, grad_weight, grad_bias), truth, strict=True):
        torch.testing.assert_close(mine.double(), true, rtol=1e-5, atol=1e-5)


@pytest.mark.without_gpu
def test_the_librarys_bits_do_not_depend_on_the_thread_count():
    x, grad = torch.randn(3000, 96), torch.randn(3000, 96)
    weight, bias = torch.randn(96), torch.randn(96)

    def run():
        forward = library.add_layer_norm(x, None, weight, bias, *[None] * 3, 1e-6)
        rest = (*forward[1:], weight, *[None] * 4, False)
        return [*forward, *library.add_layer_norm_backward(grad, None, *rest)]

    same_bits(run)
