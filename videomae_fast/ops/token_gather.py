"""Token gather and scatter along the token axis, each the other's backward."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from videomae_fast.ops import _native
from videomae_fast.ops._dispatch import (
    Backend,
    always,
    lazy,
    needs_native,
    needs_triton,
    register,
)
from videomae_fast.ops.checks import check_index


def token_gather(x: Tensor, index: Tensor, *, impl: str = "auto") -> Tensor:
    """The rows of `x` at `index`: ``out[b, k] = x[b, index[b, k]]``.

    Args:
        x: [B, N, D], any floating dtype.
        index: int32 [B, K] in 0..N-1 (not checked on a GPU); positions may repeat.

    Returns:
        [B, K, D], dtype of `x`. The gradient of repeated positions is summed in fp32.

    Raises:
        ValueError: wrong shapes or dtypes.
        BackendUnavailableError: `impl` can't run here.
    """
    _check(x, index)
    out: Tensor = _token_gather(x, index, impl)
    return out


def token_scatter(x: Tensor, index: Tensor, tokens: int, *, impl: str = "auto") -> Tensor:
    """The rows of `x` added at `index` into zeros: ``out[b, index[b, k]] += x[b, k]``.

    Args:
        x: [B, K, D], any floating dtype.
        index: int32 [B, K] in 0..tokens-1 (not checked on a GPU).
        tokens: N, the token count of the result.

    Returns:
        [B, N, D], dtype of `x`; repeated positions are summed in fp32.

    Raises:
        ValueError: wrong shapes or dtypes.
        BackendUnavailableError: `impl` can't run here.
    """
    _check(x, index)
    if index.shape[1] != x.shape[1]:
        raise ValueError(f"x has {x.shape[1]} rows per clip and index {index.shape[1]}")
    out: Tensor = _token_scatter(x, index, tokens, impl)
    return out


def _check(x: Tensor, index: Tensor) -> None:
    if x.ndim != 3 or not x.is_floating_point():
        raise ValueError(f"x must be floating [B, N, D], got {x.dtype} {list(x.shape)}")
    check_index(index, x.shape[0])


@torch.library.custom_op("videomae_fast::token_gather", mutates_args=())
def _token_gather(x: Tensor, index: Tensor, impl: str) -> Tensor:
    out: Tensor = GATHER(impl, x, index)
    return out


@_token_gather.register_fake
def _(x: Tensor, index: Tensor, impl: str) -> Tensor:
    return x.new_empty((x.shape[0], index.shape[1], x.shape[2]))


@torch.library.custom_op("videomae_fast::token_scatter", mutates_args=())
def _token_scatter(x: Tensor, index: Tensor, tokens: int, impl: str) -> Tensor:
    out: Tensor = SCATTER(impl, x, index, tokens)
    return out


@_token_scatter.register_fake
def _(x: Tensor, index: Tensor, tokens: int, impl: str) -> Tensor:
    return x.new_empty((x.shape[0], tokens, x.shape[2]))


def _gather_setup(ctx: Any, inputs: tuple[Tensor, Tensor, str], output: Tensor) -> None:
    x, index, impl = inputs
    ctx.save_for_backward(index)
    ctx.tokens, ctx.impl = x.shape[1], impl


def _gather_backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
    (index,) = ctx.saved_tensors
    return _token_scatter(grad, index, ctx.tokens, ctx.impl), None, None


def _scatter_setup(ctx: Any, inputs: tuple[Tensor, Tensor, int, str], output: Tensor) -> None:
    _, index, _, impl = inputs
    ctx.save_for_backward(index)
    ctx.impl = impl


def _scatter_backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
    (index,) = ctx.saved_tensors
    return _token_gather(grad, index, ctx.impl), None, None, None


_token_gather.register_autograd(_gather_backward, setup_context=_gather_setup)
_token_scatter.register_autograd(_scatter_backward, setup_context=_scatter_setup)


def _gather_reference(x: Tensor, index: Tensor) -> Tensor:
    rows = index.long().unsqueeze(-1).expand(-1, -1, x.shape[2])
    return torch.gather(x, 1, rows)


def _scatter_reference(x: Tensor, index: Tensor, tokens: int) -> Tensor:
    rows = index.long().unsqueeze(-1).expand(-1, -1, x.shape[2])
    compute = torch.promote_types(x.dtype, torch.float32)
    out = x.new_zeros((x.shape[0], tokens, x.shape[2]), dtype=compute)
    return out.scatter_add_(1, rows, x.to(compute)).to(x.dtype)


def _gather_native_why_not(x: Tensor, index: Tensor) -> str | None:
    return needs_native(x, index)


def _scatter_native_why_not(x: Tensor, index: Tensor, tokens: int) -> str | None:
    if x.dtype != torch.float32:
        return f"the native library adds up fp32, not {x.dtype}"
    return needs_native(x, index)


def _triton_why_not(x: Tensor, index: Tensor, *_: int) -> str | None:
    if x.dtype not in (torch.float32, torch.bfloat16, torch.float16):
        return f"the kernels take fp32, bf16 and fp16, not {x.dtype}"
    return needs_triton(x, index)


GATHER = register(
    "token_gather",
    triton=Backend(lazy("token_gather", "token_gather"), _triton_why_not),
    native=Backend(_native.token_gather, _gather_native_why_not),
    reference=Backend(_gather_reference, always),
)
SCATTER = register(
    "token_scatter",
    triton=Backend(lazy("token_gather", "token_scatter"), _triton_why_not),
    native=Backend(_native.token_scatter, _scatter_native_why_not),
    reference=Backend(_scatter_reference, always),
)
