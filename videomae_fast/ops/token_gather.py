"""Token gather and scatter along the token axis, each the other's backward."""

from __future__ import annotations

import torch
from torch import Tensor

from videomae_fast.ops._declare import Gradient, declare, native, triton
from videomae_fast.ops._native import in_fp32, tokens
from videomae_fast.ops.checks import check_index
from videomae_fast.ops.registry import FP32_BF16


def token_gather(x: Tensor, index: Tensor, *, impl: str = "auto") -> Tensor:
    """The rows of `x` at `index`: ``out[b, k] = x[b, index[b, k]]``.

    Args:
        x: [B, N, D], any floating dtype.
        index: int32 [B, K] in 0..N-1 (not checked on a GPU); positions may repeat.
        impl: "auto", "triton" (CUDA), "native" (CPU) or "reference".

    Returns:
        [B, K, D], dtype of `x`. The gradient of repeated positions is summed in fp32.

    Raises:
        ValueError: wrong shapes or dtypes.
        BackendUnavailableError: `impl` can't run here.
    """
    _check(x, index)
    out: Tensor = _GATHER(impl, x, index)
    return out


def token_scatter(x: Tensor, index: Tensor, tokens: int, *, impl: str = "auto") -> Tensor:
    """The rows of `x` added at `index` into zeros: ``out[b, index[b, k]] += x[b, k]``.

    Args:
        x: [B, K, D], any floating dtype.
        index: int32 [B, K] in 0..tokens-1 (not checked on a GPU).
        tokens: N, the token count of the result.
        impl: "auto", "triton" (CUDA), "native" (CPU) or "reference".

    Returns:
        [B, N, D], dtype of `x`; repeated positions are summed in fp32.

    Raises:
        ValueError: wrong shapes or dtypes.
        BackendUnavailableError: `impl` can't run here.
    """
    _check(x, index)
    if index.shape[1] != x.shape[1]:
        raise ValueError(f"x has {x.shape[1]} rows per clip and index {index.shape[1]}")
    out: Tensor = _SCATTER(impl, x, index, tokens)
    return out


def _check(x: Tensor, index: Tensor) -> None:
    if x.ndim != 3 or not x.is_floating_point():
        raise ValueError(f"x must be floating [B, N, D], got {x.dtype} {list(x.shape)}")
    check_index(index, x.shape[0])


def _gather_reference(x: Tensor, index: Tensor) -> Tensor:
    rows = index.long().unsqueeze(-1).expand(-1, -1, x.shape[2])
    return torch.gather(x, 1, rows)


def _scatter_reference(x: Tensor, index: Tensor, tokens: int) -> Tensor:
    rows = index.long().unsqueeze(-1).expand(-1, -1, x.shape[2])
    compute = torch.promote_types(x.dtype, torch.float32)
    out = x.new_zeros((x.shape[0], tokens, x.shape[2]), dtype=compute)
    return out.scatter_add_(1, rows, x.to(compute)).to(x.dtype)


_GATHER = declare(
    "token_gather",
    _gather_reference,
    triton=triton("token_gather", "token_gather"),
    native=native(tokens.token_gather),
)
_SCATTER = declare(
    "token_scatter",
    _scatter_reference,
    triton=triton("token_gather", "token_scatter"),
    native=native(in_fp32(tokens.token_scatter, "x"), dtypes=FP32_BF16),
)
_GATHER.differentiate(Gradient(_SCATTER, of=("x",), keep=lambda x, index: (index, x.shape[1])))
_SCATTER.differentiate(Gradient(_GATHER, of=("x",)))
