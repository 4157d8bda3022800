"""attention with every backend: against fp64 and the reference; short and any sequences."""

from __future__ import annotations

from importlib import import_module

import pytest
import torch

from tests.support.attention import refused, use_short
from tests.support.backends import (
    FLOATS,
    KERNELS,
    REFERENCE,
    assert_accurate,
    doubled,
    named,
    same_bits,
    with_dtypes,
)
from tests.support.interpreter import ON_GPU
from videomae_fast.ops import attention

__all__ = ["use_short"]
OPS = torch.ops.videomae_fast
pytestmark = pytest.mark.usefixtures("poisoned")
# Clips, queries, keys, heads, head dim: one key, heads in one part and in two, fewer queries than
# keys and more, whole blocks and rests, the encoder's 160 tokens.
SHAPES = [
    (1, 1, 1, 1, 3),
    (2, 5, 9, 3, 8),
    (1, 70, 33, 2, 88),
    (2, 31, 150, 1, 80),
    (1, 160, 160, 1, 64),
]
# The interpreter computes in fp32 and rounds: one dtype shows what a shape does, one shape all else
OF_DTYPES = [
    (shape, dtype) for shape in SHAPES for dtype in FLOATS
    if ON_GPU or dtype == torch.bfloat16 or shape == SHAPES[2]
]  # fmt: skip


def inputs(shape, dtype, device, *, counted):
    """query, key, value and key_count; keys and values are slices of one matmul's output."""
    torch.manual_seed(0)
    clips, queries, keys, heads, dim = shape
    packed = torch.randn(clips, keys, 2, heads, dim).to(dtype).to(device)
    query = torch.randn(clips, queries, heads, dim).to(dtype).to(device)
    count = torch.tensor([max(1, keys - 7 - 40 * b) for b in range(clips)], dtype=torch.int32)
    return (query, *packed.unbind(2), count.to(device) if counted else None)


def written_out(query, key, value, count):
    """The output in fp64, clip by clip, by torch's own softmax and autograd."""
    rows = []
    for b in range(len(query)):
        n = key.shape[1] if count is None else int(count[b])
        q, k, v = (x[b].double().transpose(0, 1) for x in (query, key, value))
        weights = (q @ k[:, :n].mT * query.shape[-1] ** -0.5).softmax(-1)
        rows.append((weights @ v[:, :n]).transpose(0, 1))
    return torch.stack(rows)


@pytest.mark.parametrize("counted", [False, True])
@pytest.mark.parametrize("impl", ["sdpa", REFERENCE, *KERNELS])
@pytest.mark.parametrize("shape", SHAPES[:3], ids=str)
def test_values_and_gradients(shape, impl, counted, device):
    query, key, value, count = inputs(shape, torch.float32, device, counted=counted)
    leaves = [x.detach().requires_grad_() for x in (query, key, value)]
    out = attention(*leaves, key_count=count, impl=impl)
    grad = torch.randn(out.shape).to(device)
    truth = written_out(*leaves, count)
    torch.testing.assert_close(out.double(), truth, rtol=1e-5, atol=1e-5)
    expected = torch.autograd.grad(truth, leaves, grad.double())
    for a, b in zip(torch.autograd.grad(out, leaves, grad), expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("shape", "dtype"), OF_DTYPES, ids=str)
@pytest.mark.parametrize("counted", [False, True], ids=["all", "counted"])
def test_against_truth(shape, counted, dtype, use_short, kernels, device):
    arguments = inputs(shape, dtype, device, counted=counted)
    if refused(use_short, dtype):
        with pytest.raises(ValueError, match="16-bit"):
            kernels.forward(named("attention", *arguments), use_short=True)
        return
    out, lse = kernels.forward(named("attention", *arguments), use_short=use_short)
    reference = OPS.attention(*arguments, "reference")
    exact = OPS.attention(*doubled(arguments), "reference")
    # On a GPU weights are rounded to the inputs' dtype before they meet the values, and fp32
    # products are three of TF32, whose sums are cut off and not rounded.
    whole = 2e-6 if device == "cpu" else 6e-6
    slack = whole if dtype == torch.float32 else torch.finfo(dtype).eps
    assert_accurate(out, reference[0], exact[0], absolute=slack)
    assert_accurate(lse, reference[1], exact[1], absolute=2 * whole)

    grad = torch.randn(out.shape).to(dtype).to(device)
    saved = (grad, *arguments, *reference)
    got = kernels.backward(named("attention_backward", *saved), use_short=use_short)
    theirs = OPS.attention_backward(*saved, "reference")
    for mine, other, true in zip(
        got, theirs, OPS.attention_backward(*doubled(saved), "reference"), strict=True
    ):
        assert mine.is_contiguous()
        assert_accurate(mine, other, true, absolute=2 * slack)
    if counted:
        for b, count in enumerate(arguments[3].tolist()):
            assert not got[1][b, count:].any()
            assert not got[2][b, count:].any()


@pytest.mark.parametrize(("impl", "dtype"), with_dtypes(FLOATS[:2], FLOATS[:2]))
def test_gradients_through_the_op(impl, dtype, device):
    """Views of one packed QKV matmul, a head-major query, an expanded gradient."""
    torch.manual_seed(0)
    packed = torch.randn(2, 20, 3 * 2 * 16, device=device).to(dtype).requires_grad_()
    grad = torch.randn(2, 1, 2, 1, device=device).to(dtype).expand(2, 20, 2, 16)
    got = {}
    for name in (impl, "reference"):
        query, key, value = packed.view(2, 20, 3, 2, 16).unbind(2)
        query = query.transpose(2, 3).contiguous().transpose(2, 3)
        out = attention(query, key, value, impl=name)
        got[name] = (out, *torch.autograd.grad(out, packed, grad))
    tolerance = 1e-5 if dtype == torch.float32 else 2e-2
    for mine, theirs in zip(got[impl], got["reference"], strict=True):
        torch.testing.assert_close(mine, theirs, rtol=tolerance, atol=tolerance)


@pytest.mark.without_gpu
@pytest.mark.parametrize("stride", [(1, 2**29, 64), (1, 64, 2**30)], ids=["tokens", "heads"])
def test_tokens_and_heads_beyond_32_bits(stride, use_short, kernels, tmp_path):
    """4 × 2²⁹ and 2 × 2³⁰ are -2³¹ in 32 bits: what lies there is another token, and mapped too."""
    shape = (1, 5, 3, 16)
    file = torch.from_file(
        str(tmp_path / "sparse"), shared=True, size=2**32 + 2**12, dtype=torch.bfloat16
    )
    torch.manual_seed(0)
    far = [file.as_strided(shape, (*stride, 1), 2**31 + 1024 * i) for i in range(4)]
    for view in far:
        view.copy_(torch.randn(shape))
    query, key, value, grad = far
    near = [view.clone(memory_format=torch.contiguous_format) for view in far]
    out, lse = kernels.forward(named("attention", query, key, value, None), use_short=use_short)
    expected = kernels.forward(named("attention", *near[:3], None), use_short=use_short)
    assert torch.equal(out, expected[0])
    assert torch.equal(lse, expected[1])
    got = kernels.backward(
        named("attention_backward", grad, query, key, value, None, out, lse), use_short=use_short
    )
    right = kernels.backward(
        named("attention_backward", near[3], *near[:3], None, out, lse), use_short=use_short
    )
    for mine, theirs in zip(got, right, strict=True):
        assert torch.equal(mine, theirs)


def test_a_clip_out_of_reach_is_refused(kernels):
    clip = torch.empty((1, 2**21, 16, 64), dtype=torch.bfloat16, device="meta")
    with pytest.raises(ValueError, match=r'2097152 tokens of 16 heads of 64.*impl="sdpa"'):
        kernels.forward(named("attention", clip, clip, clip, None))


def test_large_scores_do_not_overflow(use_short, kernels, device):
    """Scores of thousands: the maximum is taken out before exponentials, in all families."""
    dtype = torch.bfloat16 if refused(use_short, torch.float32) else torch.float32
    query, key, value, _ = inputs((1, 20, 70, 1, 16), dtype, device, counted=False)
    query, key = 128 * query, 128 * key  # a power of two: no rounding
    out, lse = kernels.forward(named("attention", query, key, value, None), use_short=use_short)
    exact, _ = OPS.attention(query.double(), key.double(), value.double(), None, "reference")
    torch.testing.assert_close(out.double(), exact, rtol=1e-2, atol=1e-2)
    gradients = kernels.backward(
        named("attention_backward", out, query, key, value, None, out, lse), use_short=use_short
    )
    for gradient in gradients:
        assert gradient.isfinite().all()


@pytest.mark.without_gpu
def test_the_librarys_bits_do_not_depend_on_the_thread_count():
    query, key, value, _ = inputs((3, 200, 210, 3, 64), torch.float32, "cpu", counted=False)
    grad = torch.randn(query.shape)

    def run():
        out, lse = OPS.attention(query, key, value, None, "native")
        saved = (grad, query, key, value, None, out, lse)
        return [out, lse, *OPS.attention_backward(*saved, "native")]

    same_bits(run, (1, 2, 4, 7))


def test_repeated_runs_are_equal(use_short, kernels, device):
    arguments = inputs((2, 33, 40, 2, 24), torch.bfloat16, device, counted=True)
    runs = []
    for _ in range(2):
        out, lse = kernels.forward(named("attention", *arguments), use_short=use_short)
        back = kernels.backward(
            named("attention_backward", out, *arguments, out, lse), use_short=use_short
        )
        runs.append((out, lse, *back))
    for a, b in zip(*runs, strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("dim", [64, 80, 88])
def test_every_launch_that_can_be_chosen(dim, kernels, device, monkeypatch):
    """Forward and backward in one pass, 16-bit on a GPU; of several pieces with a rest."""
    short = import_module("videomae_fast.kernels.attention_short")
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    arguments = inputs((1, 150, 140, 2, dim), dtype, device, counted=True)
    reference = OPS.attention(*arguments, "reference")
    exact = OPS.attention(*doubled(arguments), "reference")
    saved = (torch.randn(reference[0].shape).to(reference[0]), *arguments, *reference)
    theirs = OPS.attention_backward(*saved, "reference")
    true = OPS.attention_backward(*doubled(saved), "reference")
    slack = 4e-6 if device == "cpu" else 2 * torch.finfo(dtype).eps
    key = short.widest(dim)
    for launch in short.FORWARD_LAUNCHES[key]:
        monkeypatch.setattr(short, "FORWARD", {**short.FORWARD, key: launch})
        out, _ = kernels.forward(named("attention", *arguments), use_short=True)
        assert_accurate(out, reference[0], exact[0], absolute=slack)
    for launch in short.ONE_PASS_LAUNCHES[key]:
        monkeypatch.setattr(short, "ONE_PASS", {key: launch})
        for each in zip(
            kernels.backward(named("attention_backward", *saved), use_short=True),
            theirs,
            true,
            strict=True,
        ):
            assert_accurate(*each, absolute=slack)


def test_no_clips(kernels, device):
    query, key, value, _ = inputs((1, 3, 4, 2, 8), torch.float32, device, counted=False)
    out, lse = kernels.forward(named("attention", query[:0], key[:0], value[:0], None))
    assert out.shape == (0, 3, 2, 8)
    gradients = kernels.backward(
        named("attention_backward", out, query[:0], key[:0], value[:0], None, out, lse)
    )
    assert [g.shape[0] for g in gradients] == [0, 0, 0]


def test_which_family_serves(kernels):
    def serves(tokens, dim, dtype):
        x = torch.zeros(1, tokens, 1, dim, dtype=dtype)
        return kernels.is_short(x, x)

    for tokens, dim in ((160, 64), (160, 80), (208, 88), (1, 1)):
        assert serves(tokens, dim, torch.bfloat16)
    assert not serves(160, 64, torch.float32)
    assert not serves(944, 64, torch.bfloat16)
    assert not serves(160, 128, torch.bfloat16)


@pytest.mark.parametrize("size", [1, 15, 16, 17, 64, 80, 88, 96, 100, 127, 160, 208, 255, 256])
def test_pieces(size, kernels):
    blocks = import_module("videomae_fast.kernels.head_blocks")
    for most in (64, 128, 256):
        cut = blocks.pieces(size, most=most)
        covered = [i for start, piece in cut for i in range(start, start + piece)]
        assert covered == list(range(len(covered)))
        assert size <= len(covered) < size + 64
        assert all(piece & (piece - 1) == 0 and 16 <= piece <= max(16, most) for _, piece in cut)
    first, second = blocks.head_parts(size)
    assert size <= first + second < max(32, 2 * size)
    assert first & (first - 1) == 0
    assert second & (second - 1) == 0


def test_sequences_of_the_encoders_are_cut_without_rest(kernels):
    blocks = import_module("videomae_fast.kernels.head_blocks")
    assert blocks.pieces(160) == ((0, 128), (128, 32))
    assert blocks.pieces(208) == ((0, 128), (128, 64), (192, 16))
    assert [blocks.head_parts(d) for d in (64, 80, 88)] == [(64, 0), (64, 16), (64, 32)]


def test_a_wrong_kernel_is_caught(use_short, kernels, device, monkeypatch):
    """The natural exponential's scale where that of 2 belongs."""
    dtype = torch.float16 if refused(use_short, torch.float32) else torch.float32
    arguments = inputs((1, 9, 20, 1, 16), dtype, device, counted=False)
    right = kernels._common
    monkeypatch.setattr(
        kernels, "_common", lambda q, c: {**right(q, c), "scale": q.shape[3] ** -0.5}
    )
    broken = kernels.forward(named("attention", *arguments), use_short=use_short)[0]
    reference = OPS.attention(*arguments, "reference")[0]
    exact = OPS.attention(*doubled(arguments), "reference")[0]
    with pytest.raises(AssertionError, match="error"):
        assert_accurate(broken, reference, exact, absolute=1e-3)
