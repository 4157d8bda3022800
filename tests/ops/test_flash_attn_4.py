"""flash-attn-4's place, with a stand-in of its interface on the CPU."""

from __future__ import annotations

import sys
from importlib import metadata
from types import ModuleType

import pytest
import torch
from torch import Tensor

from videomae_fast.ops import attention as attend
from videomae_fast.ops._attention import flash_attn_4
from videomae_fast.ops._attention.flash_attn_4 import attention, too_old


def _weights(query: Tensor, key: Tensor) -> Tensor:
    scores = torch.einsum("bqhd,bkhd->bhqk", query, key) * query.shape[-1] ** -0.5
    return scores


def fwd(
    query: Tensor, key: Tensor, value: Tensor, *, return_lse: bool
) -> tuple[Tensor | None, ...]:
    """As ``_flash_attn_fwd`` of 4.0: (out, log-sum-exp, and two that others need)."""
    assert return_lse
    lse = _weights(query, key).logsumexp(-1)
    weights = (_weights(query, key) - lse[..., None]).exp()
    return torch.einsum("bhqk,bkhd->bqhd", weights, value).contiguous(), lse, None, None


def bwd(
    query: Tensor, key: Tensor, value: Tensor, out: Tensor, dout: Tensor, lse: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    weights = (_weights(query, key) - lse[..., None]).exp()
    inner = torch.einsum("bqhd,bkhd->bhqk", dout, value)
    rows = (dout * out).sum(-1).transpose(1, 2)[..., None]
    scores = weights * (inner - rows) * query.shape[-1] ** -0.5
    return (
        torch.einsum("bhqk,bkhd->bqhd", scores, key).contiguous(),
        torch.einsum("bhqk,bqhd->bkhd", scores, query).contiguous(),
        torch.einsum("bhqk,bqhd->bkhd", weights, dout).contiguous(),
    )


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    interface = ModuleType("flash_attn.cute.interface")
    vars(interface).update(_flash_attn_fwd=fwd, _flash_attn_bwd=bwd)
    for name in ("flash_attn", "flash_attn.cute"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setitem(sys.modules, interface.__name__, interface)


def heads(queries: int = 5) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [
        torch.randn(2, n, 2, 8, generator=generator, dtype=torch.float64).requires_grad_()
        for n in (queries, 7, 7)
    ]


@pytest.mark.usefixtures("stand_in")
def test_it_is_attention_forward_and_backward() -> None:
    mine, theirs = heads(), heads()
    out, expected = attention(*mine), attend(*theirs, impl="sdpa")
    torch.testing.assert_close(out, expected)
    for each in (out, expected):
        (each * torch.arange(8.0, dtype=torch.float64)).sum().backward()
    for one, other in zip(mine, theirs, strict=True):
        torch.testing.assert_close(one.grad, other.grad)


@pytest.mark.usefixtures("stand_in")
def test_the_registration_holds() -> None:
    # Its log-sum-exp is fp32, whatever the inputs: so is the stand-in's here
    arguments = tuple(each.detach().float().requires_grad_() for each in heads())
    torch.library.opcheck(flash_attn_4._forward, arguments)
    out, lse = (each.detach() for each in flash_attn_4._forward(*arguments))
    plain = [each.detach() for each in arguments]
    torch.library.opcheck(flash_attn_4._backward, (torch.ones_like(out), *plain, out, lse))


@pytest.mark.usefixtures("stand_in")
def test_it_breaks_no_graph() -> None:
    compiled = torch.compile(attention, fullgraph=True, backend="aot_eager")
    arguments = [each.detach().float().requires_grad_() for each in heads()]
    torch.testing.assert_close(compiled(*arguments), attention(*arguments))


@pytest.mark.parametrize(
    ("version", "serves"),
    [("4.0.0b29", False), ("4.0.0b30", True), ("4.0.0", True), ("4.1.2b1", True), ("odd", False)],
)
def test_early_betas_are_refused(
    monkeypatch: pytest.MonkeyPatch, version: str, serves: bool
) -> None:
    monkeypatch.setattr(metadata, "version", lambda _: version)
    too_old.cache_clear()
    try:
        told = too_old()
    finally:
        too_old.cache_clear()
    assert (told is None) == serves
    if told is not None:
        assert told.startswith(f"flash-attn-4 is {version} here, and gradients need 4.0.0b30")
