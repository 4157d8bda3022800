"""Attention of the compiled library: float64 truths, odd sizes, views, threads, NaN, infinity."""

from __future__ import annotations

import ctypes
from importlib import import_module

import pytest
import torch
from torch import Tensor

from tests.support import library
from tests.support.building import in_place_of_ours, without_levels

reference = import_module("videomae_fast.ops.attention")

# queries, keys, heads, head dim: one of each, tails of tiles, vectors and blocks, the models' dims
SHAPES = [
    (1, 1, 1, 1),
    (5, 9, 2, 3),
    (6, 16, 1, 16),
    (97, 95, 1, 17),
    (33, 193, 2, 31),
    (100, 7, 3, 64),
    (96, 192, 1, 80),
    (17, 99, 2, 88),
    (64, 130, 1, 128),
    (3, 101, 1, 200),
]


def inputs(queries: int, keys: int, heads: int, dim: int, batch: int = 2) -> list[Tensor]:
    """query, key, value as views of packed tensors, and the gradient of the output."""
    random = torch.Generator().manual_seed(dim)
    query = torch.randn(batch, queries, 2, heads, dim, generator=random)[:, :, 1]
    key, value = torch.randn(batch, keys, 2, heads, dim, generator=random).unbind(2)
    return [query, key, value, torch.randn(batch, queries, heads, dim, generator=random)]


def written_out(tensors: list[Tensor], count: Tensor | None, dtype: torch.dtype) -> list[Tensor]:
    """The output, the log-sum-exp and three gradients, by torch's own softmax and autograd."""
    query, key, value = (x.detach().to(dtype).requires_grad_() for x in tensors[:3])
    scores = torch.einsum("bqhd,bkhd->bhqk", query, key) * query.shape[-1] ** -0.5
    if count is not None:
        out_of = torch.arange(key.shape[1]) >= count[:, None]
        scores = scores.masked_fill(out_of[:, None, None], float("-inf"))
    out = torch.einsum("bhqk,bkhd->bqhd", scores.softmax(-1), value)
    gradients = torch.autograd.grad(out, (query, key, value), tensors[3].to(dtype))
    return [out.detach(), scores.logsumexp(-1).detach(), *gradients]


def ours(tensors: list[Tensor], count: Tensor | None = None) -> list[Tensor]:
    query, key, value, grad = tensors
    out, lse = library.attention(query, key, value, count)
    return [out, lse, *library.attention_backward(grad, query, key, value, count, out, lse)]


def assert_as_good(tensors: list[Tensor], count: Tensor | None = None) -> None:
    """Each error is at most three times that of torch in fp32, which sums in another order."""
    exact, fp32 = (written_out(tensors, count, d) for d in (torch.float64, torch.float32))
    for a, b, c in zip(ours(tensors, count), fp32, exact, strict=True):
        error, allowed = (float((x.double() - c).abs().max()) for x in (a, b))
        assert error <= 3 * allowed + 1e-6 * max(1.0, float(c.abs().max()))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("counted", [False, True])
def test_attention(shape: tuple[int, int, int, int], counted: bool, threads: int) -> None:
    keys = shape[1]
    count = torch.tensor([max(1, keys - 5), max(1, keys // 3)]).int() if counted else None
    assert_as_good(inputs(*shape), count)


@pytest.mark.parametrize("dim", [*range(1, 20), 47, 48, 49, 63, 65, 127])
def test_every_tail_of_a_head(dim: int) -> None:
    assert_as_good(inputs(7, 13, 1, dim, batch=1))


def test_large_logits() -> None:
    """Weights of 1 and 0, and maxima that move from one block of keys to the next."""
    query, key, value, grad = inputs(50, 300, 2, 64)
    assert_as_good([query * 100, key, value, grad])
    rising = torch.linspace(0, 50, 300)[None, :, None, None]
    assert_as_good([query.abs(), rising.expand(key.shape) / 8, value, grad])
    assert_as_good([query.abs(), -rising.expand(key.shape) - 40, value, grad])


def test_views_are_read_as_they_lie() -> None:
    tensors = inputs(40, 50, 2, 24)
    expected = ours([x.contiguous() for x in tensors])
    for a, b in zip(ours(tensors), expected, strict=True):
        assert torch.equal(a, b)
    strided = [x.transpose(1, 3).contiguous().transpose(1, 3) for x in tensors]
    assert not strided[0].is_contiguous()
    for a, b in zip(ours(strided), expected, strict=True):
        assert torch.equal(a, b)
    one_clip = [x[:1].expand(2, -1, -1, -1) for x in tensors]
    for a, b in zip(ours(one_clip), expected, strict=True):
        assert torch.equal(a[1], b[0])


def test_keys_past_the_count_are_not_looked_at() -> None:
    tensors = inputs(20, 120, 2, 16)
    count = torch.tensor([119, 97], dtype=torch.int32)
    expected = ours(tensors, count)
    for x in tensors[1:3]:
        x[0, 119:], x[1, 97:] = float("nan"), float("inf")
    for a, b in zip(ours(tensors, count), expected, strict=True):
        assert torch.equal(a, b)
    for gradient in expected[3:]:
        assert not gradient[0, 119:].any()
        assert not gradient[1, 97:].any()
        assert gradient[1, 96].all()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("which", [0, 1, 2, 3])
def test_what_is_not_finite_spreads_as_in_the_reference(which: int, value: float) -> None:
    """At least as far within the clip's head, and not out of it."""
    tensors = [x.clone() for x in inputs(20, 110, 2, 8)]
    clean = ours(tensors)
    tensors[which][0, 3, 1, 5] = value
    query, key, value_, grad = tensors
    out, lse = reference.attention_reference(query, key, value_, None)
    gradients = reference.attention_backward_reference(grad, query, key, value_, None, out, lse)
    got = ours(tensors)
    for a, b in zip((got[0], *got[2:]), (out, *gradients), strict=True):
        assert not (a.isfinite() & ~b.isfinite()).any()
    for a, b in zip((got[0], *got[2:]), (clean[0], *clean[2:]), strict=True):
        assert torch.equal(a[1], b[1])
        assert torch.equal(a[0, :, 0], b[0, :, 0])
    if which != 1:  # the key is every query's
        untouched = torch.arange(20) != 3 if which != 2 else torch.zeros(20, dtype=torch.bool)
        assert torch.equal(got[0][0, untouched], clean[0][0, untouched])


def test_a_nan_with_a_payload_stays_one() -> None:
    query, key, value, grad = inputs(4, 110, 1, 1, batch=1)
    key = key.contiguous()
    key.view(torch.int32)[0, 2] = 0x7FC12345
    assert all(x.isnan().all() for x in ours([query, key, value, grad]))


def test_scores_of_minus_infinity() -> None:
    """As many as there are: whole blocks of keys without weight, and a query with none at all."""
    query = torch.tensor([1.0, -1.0]).view(1, 2, 1, 1)
    key = torch.zeros(1, 200, 1, 1)
    key[:, :150] = float("-inf")
    value = torch.arange(200.0).view(1, 200, 1, 1)
    out, lse = library.attention(query, key, value, None)
    torch.testing.assert_close(out[0, 0, 0, 0], value[0, 150:].mean())
    torch.testing.assert_close(lse[0, 0, 0], torch.tensor(50.0).log())
    assert out[0, 1].isnan().all()  # +inf
    out, _ = library.attention(query[:, :1], key[:, :120], value[:, :120], None)
    assert out.isnan().all()


def test_nothing_to_do_and_wrong_arguments() -> None:
    query, key, value, grad = inputs(4, 5, 1, 8)
    assert library.attention(query[:, :0], key, value, None)[0].shape == (2, 0, 1, 8)
    gradients = ours([query[:, :0], key, value, grad[:, :0]])[2:]
    assert not gradients[1].any()
    assert not gradients[2].any()
    assert ours([x[:0] for x in (query, key, value, grad)])[0].shape == (0, 4, 1, 8)
    with pytest.raises(ValueError, match="refuses its arguments"):
        library.attention(query, key[:, :0], value[:, :0], None)


@pytest.fixture(scope="module", params=[("x86-64-v4",), ("x86-64-v4", "x86-64-v3")], ids=len)
def lower_level(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> ctypes.CDLL:
    """The library's attention for a processor that lacks these levels."""
    return without_levels("attention.cpp", request.param, tmp_path_factory.mktemp("csrc"))


def test_lower_instruction_sets(lower_level: ctypes.CDLL) -> None:
    with in_place_of_ours(lower_level):
        for shape in SHAPES:
            assert_as_good(inputs(*shape), torch.tensor([shape[1], max(1, shape[1] // 3)]).int())
        test_scores_of_minus_infinity()
