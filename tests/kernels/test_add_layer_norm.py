"""add_layer_norm's Triton kernels: against fp64 and the reference, any width, layout and dtype."""

from __future__ import annotations

from importlib import import_module

import pytest
import torch

from videomae_fast.ops.add_layer_norm import _backward_reference, _forward_reference, add_layer_norm

# Clips, tokens, width: one value, odd widths, chunks with and without a rest, several programs.
SHAPES = [(1, 1, 1), (2, 3, 5), (2, 21, 192), (3, 5, 88), (1, 9, 768), (1, 5, 1408), (2, 70, 40)]
DTYPES = [torch.float32, torch.bfloat16, torch.float16]


@pytest.fixture
def kernels(_interpreter):
    """Imported inside a test: Triton's switch must be on."""
    return import_module("videomae_fast.kernels.add_layer_norm")


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


def doubled(arguments):
    return tuple(a.double() if torch.is_tensor(a) else a for a in arguments)


@pytest.mark.parametrize(
    ("dtype", "scaled", "dropped", "biased"),
    [
        *((dtype, True, True, True) for dtype in DTYPES),
        (torch.float32, False, False, True),
        (torch.float32, True, False, False),
    ],
)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_against_truth(shape, dtype, scaled, dropped, biased, kernels, device, assert_accurate):
    arguments = inputs(shape, dtype, device, scaled=scaled, dropped=dropped, biased=biased)
    reference = _forward_reference(*arguments)
    got = kernels.forward(*arguments)
    exact = _forward_reference(*doubled(arguments))
    assert_accurate(got[1], reference[1], exact[1])
    # The norm is that of the stream as stored, so the truth starts from there.
    _, delta, weight, bias, *_ = doubled(arguments)
    rest = (weight, bias, None, None, None, 1e-6)
    for k in (0, 2, 3):
        exact = _forward_reference(got[1].double(), torch.zeros_like(delta), *rest)
        mine = _forward_reference(got[1], torch.zeros_like(arguments[1]), *arguments[2:4],
                                     *rest[2:])  # fmt: skip
        absolute = 2e-6
        if device != "cpu":  # whose root and division are off by up to 3 units in the last place
            absolute += 4e-7 * float(exact[k].abs().max())
        assert_accurate(got[k], mine[k], exact[k], absolute=absolute)

    grad_out, grad_stream = (torch.randn(shape).to(dtype).to(device) for _ in range(2))
    residual = grad_stream if biased else None
    saved = (got[1], got[2], got[3], arguments[2], arguments[1], *arguments[4:7], biased)
    reference = _backward_reference(grad_out, residual, *saved)
    back = kernels.backward(grad_out, residual, *saved)
    exact = _backward_reference(*doubled((grad_out, residual, *saved)))
    for k, (mine, theirs, true) in enumerate(zip(back, reference, exact, strict=True)):
        assert mine.shape == theirs.shape, k
        if mine.numel():
            sums = 2e-6 * (shape[0] * shape[1]) ** 0.5 * 4
            assert_accurate(mine, theirs, true, absolute=sums + 4e-6)


def test_gradients_through_the_op(device):
    """Not contiguous: every other token of x, a transposed delta, an expanded gradient."""
    torch.manual_seed(0)
    x = torch.randn(2, 6, 24, device=device)[:, ::2].requires_grad_()
    delta = torch.randn(24, 3, 2, device=device).permute(2, 1, 0).requires_grad_()
    vectors = [torch.randn(24, device=device, requires_grad=True) for _ in range(4)]
    factor = torch.tensor([0.0, 2.0], device=device)
    got = {}
    for impl in ("triton", "reference"):
        out, stream = add_layer_norm(
            x, delta, vectors[0], vectors[1], delta_bias=vectors[2], scale=vectors[3],
            factor=factor, impl=impl,
        )  # fmt: skip
        loss = out.sum() + (stream * stream).sum()
        got[impl] = (out, stream, *torch.autograd.grad(loss, (x, delta, *vectors)))
    for mine, theirs in zip(got["triton"], got["reference"], strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=2e-5)


def test_repeated_runs_are_equal(kernels, device):
    arguments = inputs((3, 40, 96), torch.bfloat16, device, scaled=True, dropped=True, biased=True)
    first, second = kernels.forward(*arguments), kernels.forward(*arguments)
    grad = torch.randn(3, 40, 96).to(torch.bfloat16).to(device)
    saved = (first[1], first[2], first[3], arguments[2], arguments[1], *arguments[4:7], True)
    for a, b in (
        *zip(first, second, strict=True),
        *zip(*(kernels.backward(grad, None, *saved) for _ in range(2)), strict=True),
    ):
        assert torch.equal(a, b)


@pytest.mark.parametrize("programs", [1, 3])
def test_however_many_programs_share_the_rows(
    programs, kernels, device, assert_accurate, monkeypatch
):
    """Runs of several tiles with a rest, where the last program has fewer rows."""
    monkeypatch.setattr(kernels, "programs_at_once", lambda *_: programs)
    arguments = inputs((3, 37, 200), torch.float32, device, scaled=True, dropped=True, biased=True)
    out, stream, mean, rstd = kernels.forward(*arguments)
    saved = (stream, mean, rstd, arguments[2], arguments[1], *arguments[4:7], True)
    grads = torch.randn(2, 3, 37, 200).to(device).unbind()
    got = (out, stream, mean, rstd, *kernels.backward(*grads, *saved))
    assert_all = zip(
        got,
        (*_forward_reference(*arguments), *_backward_reference(*grads, *saved)),
        (
            *_forward_reference(*doubled(arguments)),
            *_backward_reference(*doubled((*grads, *saved))),
        ),
        strict=True,
    )
    for mine, theirs, true in assert_all:
        assert_accurate(mine, theirs, true, absolute=1e-4)


def test_no_rows(kernels, device):
    arguments = inputs((0, 4, 8), torch.float32, device, scaled=True, dropped=False, biased=True)
    got = kernels.forward(*arguments)
    assert got[0].shape == (0, 4, 8)
    back = kernels.backward(got[0], None, got[1], got[2], got[3], arguments[2], arguments[1],
                            *arguments[4:7], True)  # fmt: skip
    for gradient in back[2:]:
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


def test_a_wrong_kernel_is_caught(kernels, device, assert_accurate, monkeypatch):
    """Rows of the last program left out of the sums, as a wrong end of its run would."""
    arguments = inputs((2, 40, 96), torch.float32, device, scaled=False, dropped=False, biased=True)
    out, stream, mean, rstd = kernels.forward(*arguments)
    saved = (out, None, stream, mean, rstd, arguments[2], None, None, None, None, True)
    exact = _backward_reference(*doubled(saved))
    reference = _backward_reference(*saved)
    right = kernels.sum_columns
    monkeypatch.setattr(kernels, "sum_columns", lambda p, outs: right(p[:, :-1].contiguous(), outs))
    broken = kernels.backward(*saved)
    with pytest.raises(AssertionError, match="error"):
        assert_accurate(broken[2], reference[2], exact[2], absolute=1e-4)
