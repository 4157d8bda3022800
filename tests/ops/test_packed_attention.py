"""Attention of packed queries, keys and values: one gradient, and those of the biases with it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from tests.support.attention import refused, use_short
from tests.support.backends import FLOATS, KERNELS, REFERENCE, doubled, named, same_bits
from videomae_fast.errors import BackendUnavailableError
from videomae_fast.ops import attention, linear, packed_attention, packed_bias
from videomae_fast.ops.packed_qkv import join_gradients
from videomae_fast.ops.registry import forced

__all__ = ["use_short"]
OPS = torch.ops.videomae_fast
# Clips, tokens, heads, head dim: heads in one part and in two, rests, several blocks of 128.
SHAPES = [(1, 1, 1, 3), (2, 33, 2, 8), (1, 140, 1, 88), (3, 17, 2, 80)]
Case = tuple[Tensor, Tensor | None, Tensor, Tensor, Tensor | None]


@pytest.fixture(autouse=True)
def _kernels(poisoned: None, interpreted: None) -> None:
    """Results start as NaN, and Triton's kernels run here."""


def inputs(
    shape: tuple[int, int, int, int], dtype: torch.dtype, device: str, *, apart: bool, counted: bool
) -> Case:
    """packed, query, q_bias, v_bias, key_count."""
    torch.manual_seed(0)
    clips, tokens, heads, dim = shape
    packed = torch.randn(clips, tokens, 2 if apart else 3, heads, dim)
    query = torch.randn(clips, tokens // 2 + 1, heads, dim).to(dtype).to(device) if apart else None
    q_bias, v_bias = (torch.randn(heads * dim).to(device) for _ in range(2))
    count = torch.tensor([max(1, tokens - 3 - b) for b in range(clips)], dtype=torch.int32)
    given = count.to(device) if counted else None
    return packed.to(dtype).to(device), query, q_bias, v_bias, given


def run(case: Case, impl: str) -> tuple[Tensor, ...]:
    """Output, then the gradients of packed, query where there is one, q_bias and v_bias."""
    tensors = [None if x is None else x.clone().requires_grad_() for x in case[:4]]
    packed, query, q_bias, v_bias = tensors
    assert packed is not None
    out = packed_attention(
        packed, query=query, q_bias=q_bias, v_bias=v_bias, key_count=case[4], impl=impl
    )
    torch.manual_seed(1)
    grad = torch.randn(out.shape).to(out)
    leaves = [x for x in tensors if x is not None]
    return out, *torch.autograd.grad(out, leaves, grad)


def truth(case: Case) -> tuple[Tensor, ...]:
    """The same in fp64, by biases that are zeros added where autograd sees them."""
    packed, query, q_bias, v_bias, count = doubled(case)
    packed, q_bias, v_bias = (x.requires_grad_() for x in (packed, q_bias, v_bias))
    heads = packed.shape[3:]
    zero = [(bias - bias.detach()).view(heads) for bias in (q_bias, v_bias)]
    if query is None:
        q, k, v = packed.unbind(2)
    else:
        query = query.requires_grad_()
        q, (k, v) = query, packed.unbind(2)
    out = attention(q + zero[0], k, v + zero[1], key_count=count, impl="reference")
    torch.manual_seed(1)
    grad = torch.randn(out.shape).to(case[0].dtype).to(out)
    leaves = [x for x in (packed, query, q_bias, v_bias) if x is not None]
    return out, *torch.autograd.grad(out, leaves, grad)


@pytest.mark.parametrize("counted", [False, True], ids=["all", "counted"])
@pytest.mark.parametrize("apart", [False, True], ids=["packed", "apart"])
@pytest.mark.parametrize("impl", ["sdpa", REFERENCE, *KERNELS])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_values_and_gradients(shape, impl, apart, counted, device):
    case = inputs(shape, torch.float32, device, apart=apart, counted=counted)
    for mine, true in zip(run(case, impl), truth(case), strict=True):
        assert mine.is_contiguous()
        torch.testing.assert_close(mine.double(), true, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("dtype", FLOATS[1:], ids=str)
@pytest.mark.parametrize("apart", [False, True], ids=["packed", "apart"])
@pytest.mark.parametrize("impl", ["sdpa", "reference", "triton"])
def test_sixteen_bits(impl, apart, dtype, device):
    """The biases' gradients are summed in fp32 and keep their own dtype."""
    case = inputs((2, 150, 2, 88), dtype, device, apart=apart, counted=False)
    got, expected = run(case, impl), truth(case)
    assert [x.dtype for x in got[-2:]] == [torch.float32] * 2
    for mine, true in zip(got, expected, strict=True):
        scale = true.detach().abs().max().item()
        torch.testing.assert_close(mine.double(), true, rtol=0, atol=0.02 * scale)


@pytest.mark.parametrize("apart", [False, True], ids=["packed", "apart"])
@pytest.mark.parametrize("shape", [(2, 70, 2, 24), (1, 160, 1, 88)], ids=str)
def test_all_families_of_kernels(shape, apart, use_short, kernels, device):
    half = refused(use_short, torch.float32)
    dtype = torch.bfloat16 if half else torch.float32
    case = inputs(shape, dtype, device, apart=apart, counted=True)
    out, lse = OPS.packed_attention(*case, "reference")
    saved = (torch.randn(out.shape, device=device).to(dtype), *case, out, lse)
    got = kernels.backward(
        named("packed_attention_backward", *saved, True, True), use_short=use_short
    )
    for mine, true in zip(
        got, OPS.packed_attention_backward(*doubled(saved), True, True, "reference"), strict=True
    ):
        close = {"rtol": 1e-4, "atol": 1e-5}
        if half and true.numel():
            close = {"rtol": 0, "atol": 0.02 * float(true.abs().max())}
        torch.testing.assert_close(mine.double(), true, **close)


@pytest.mark.parametrize("impl", ["sdpa", REFERENCE, *KERNELS])
def test_only_what_is_wanted(impl, device):
    """Frozen biases, no biases, frozen queries: nothing is made for them."""
    packed, query, q_bias, v_bias, _ = inputs(
        (2, 9, 2, 8), torch.float32, device, apart=True, counted=False
    )
    learnt = packed.requires_grad_()
    out = packed_attention(learnt, query=query, q_bias=q_bias, v_bias=v_bias, impl=impl)
    out.sum().backward()
    assert query.grad is None
    assert q_bias.grad is None
    alone = v_bias.clone().requires_grad_()
    out = packed_attention(packed.detach(), query=query, v_bias=alone, impl=impl)
    out.sum().backward()
    # The weights of a query sum to 1: each value's gradient does, over all keys, to the queries
    expected = torch.full_like(alone, float(query.shape[0] * query.shape[1]))
    torch.testing.assert_close(alone.grad, expected)


@pytest.mark.parametrize("impl", ["sdpa", REFERENCE, *KERNELS])
def test_with_the_matmul_it_is_a_bias_added_there(impl, device):
    """The pair that models use: a bias without a gradient in the matmul, its gradient here."""
    torch.manual_seed(0)
    x = torch.randn(2, 7, 12, device=device)
    weight = 0.3 * torch.randn(36, 12, device=device)
    found = []
    for ours in (True, False):
        q_bias, v_bias = (
            torch.ones(12, device=device).mul_(i).requires_grad_() for i in (0.2, 0.3)
        )
        leaf = weight.clone().requires_grad_()
        if ours:
            packed = linear(x, leaf, packed_bias(q_bias, v_bias, torch.float32))
            out = packed_attention(
                packed.unflatten(-1, (3, 2, 6)), q_bias=q_bias, v_bias=v_bias, impl=impl
            )
        else:
            packed = x @ leaf.T + torch.cat([q_bias, torch.zeros_like(v_bias), v_bias])
            out = attention(*packed.unflatten(-1, (3, 2, 6)).unbind(2), impl="reference")
        out.square().sum().backward()
        found.append((out, leaf.grad, q_bias.grad, v_bias.grad))
    for mine, theirs in zip(*found, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("both", [True, False])
def test_the_bias_is_laid_out_once(both, dtype, device):
    q_bias, v_bias = (torch.randn(1030, device=device, requires_grad=True) for _ in range(2))
    out = packed_bias(q_bias if both else None, v_bias, dtype, impl="triton")
    parts = [q_bias] * both + [torch.zeros_like(v_bias), v_bias]
    assert not out.requires_grad
    torch.testing.assert_close(out, torch.cat(parts).to(dtype), rtol=2**-7, atol=0)
    assert torch.equal(packed_bias(q_bias, v_bias, dtype)[1030:2060], torch.zeros_like(out[:1030]))


@pytest.mark.parametrize("apart", [False, True])
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("shape", [(2, 40, 3, 8), (1, 5, 1, 88), (3, 1, 2, 3)], ids=str)
def test_three_gradients_of_any_strides_become_one(shape, dtype, apart, device):
    torch.manual_seed(0)
    clips, tokens, heads, dim = shape
    key, value = (
        torch.randn(clips, heads, tokens, dim).to(dtype).to(device).transpose(1, 2)
        for _ in range(2)
    )
    asked = tokens + 3 if apart else tokens
    query = torch.randn(clips, asked, heads, dim).to(dtype).to(device)
    bias = torch.zeros(heads * dim, device=device)
    with forced("triton"):
        out, of_query, of_value = join_gradients(query, key, value, bias, bias, apart)
    parts = (key, value) if apart else (query, key, value)
    assert torch.equal(out, torch.stack(parts, 2))
    for mine, grad in ((of_query, query), (of_value, value)):
        true = grad.double().sum((0, 1)).flatten()
        torch.testing.assert_close(mine.double(), true, rtol=1e-5, atol=1e-5)


@pytest.mark.without_gpu
def test_the_librarys_bits_do_not_depend_on_the_thread_count():
    case = inputs((3, 100, 3, 64), torch.float32, "cpu", apart=False, counted=False)
    same_bits(lambda: list(run(case, "native")), (1, 2, 4, 7))


@pytest.mark.parametrize("impl", ["triton", "sdpa"])
def test_repeated_runs_are_equal(impl, device):
    case = inputs((2, 33, 2, 24), torch.bfloat16, device, apart=False, counted=True)
    for one, other in zip(run(case, impl), run(case, impl), strict=True):
        assert torch.equal(one, other)


class Called(TorchDispatchMode):
    """The names of the ops that are called."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.append(func.name())
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("impl", ["sdpa", "reference", "triton"])
@pytest.mark.parametrize("apart", [False, True], ids=["packed", "apart"])
def test_no_concatenation_and_no_sum(apart, impl, device):
    case = inputs((1, 5, 1, 8), torch.float32, device, apart=apart, counted=False)
    with Called() as called:
        run(case, impl)
    wrong = [n for n in called.names if n.split("::")[1].split(".")[0] in ("cat", "stack", "sum")]
    assert wrong == []


def test_what_the_compiler_makes_of_it(device):
    """One graph, for a library's attention too, whose gradients one pass brings together."""
    case = inputs((1, 6, 2, 8), torch.float32, device, apart=False, counted=False)
    packed, _, q_bias, v_bias, _ = case

    def step(packed: Tensor, q_bias: Tensor, v_bias: Tensor) -> Tensor:
        return packed_attention(packed, q_bias=q_bias, v_bias=v_bias, impl="sdpa").square().sum()

    torch.compiler.reset()
    found = []
    for function in (step, torch.compile(step, fullgraph=True, backend="aot_eager")):
        leaves = [x.clone().requires_grad_() for x in (packed, q_bias, v_bias)]
        found.append(torch.autograd.grad(function(*leaves), leaves))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other)


def test_no_clips(device):
    case = inputs((2, 4, 2, 8), torch.float32, device, apart=False, counted=False)
    empty = (case[0][:0], *case[1:])
    for impl in ("triton", "reference"):
        out, grad, of_query, of_value = run(empty, impl)
        assert out.shape == (0, 4, 2, 8)
        assert grad.shape == (0, 4, 3, 2, 8)
        assert not of_query.any()
        assert not of_value.any()


def test_wrong_arguments(device):
    packed, _, bias, _, count = inputs(
        (2, 4, 2, 8), torch.float32, device, apart=False, counted=True
    )
    with pytest.raises(ValueError, match=r"packed must be \[B, N, 3, heads, head dim\]"):
        packed_attention(packed[:, :, :2])
    with pytest.raises(ValueError, match=r"packed must be \[B, N, 2, heads, head dim\]"):
        packed_attention(packed, query=packed[:, :, 0])
    with pytest.raises(ValueError, match=r"must be \[16\], got \[15\]"):
        packed_attention(packed, q_bias=bias[:15])
    with pytest.raises(ValueError, match="does not fit key"):
        packed_attention(packed[:, :, :2], query=packed[:1, :, 0])
    with pytest.raises(ValueError, match=r"key_count must be \[2\]"):
        packed_attention(packed, key_count=count[:1])
    with pytest.raises(ValueError, match=r"must be \[D\]"):
        packed_bias(bias[:3], bias, torch.float32)
    with pytest.raises(BackendUnavailableError, match="query is"):
        packed_attention(packed[:, :, :2], query=packed[:, :, 0].bfloat16(), impl="triton")


def test_a_clip_out_of_reach_is_refused(kernels):
    packed = torch.empty((1, 2**20, 3, 16, 64), dtype=torch.bfloat16, device="meta")
    with pytest.raises(ValueError, match=r'3221225472 values.*impl="sdpa"'):
        kernels.backward(
            named(
                "packed_attention_backward", packed, packed, *[None] * 4, packed, packed, True, True
            )
        )
