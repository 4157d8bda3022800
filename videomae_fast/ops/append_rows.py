"""Rows of a table that all clips share, appended to each clip's own rows."""

from __future__ import annotations

import torch
from torch import Tensor

from videomae_fast.ops._declare import Gradient, declare, native, triton
from videomae_fast.ops._native import in_fp32, tokens
from videomae_fast.ops.checks import check_index
from videomae_fast.ops.registry import FP32_BF16


def append_rows(x: Tensor, table: Tensor, index: Tensor, *, impl: str = "auto") -> Tensor:
    """Each clip's own rows, then those of the table at its index, in one pass.

    ``out[b, :V] = x[b]`` and ``out[b, V:] = table[index[b]]``: a concatenation with an embedding.

    Args:
        x: [B, V, C], any floating dtype.
        table: [N, C], dtype of `x`.
        index: int32 [B, M] in 0..N-1 (not checked on a GPU); positions may repeat.
        impl: "auto", "triton" (CUDA), "native" (CPU) or "reference".

    Returns:
        [B, V + M, C], dtype of `x`. The gradient of a row of the table is summed in fp32 over all
        entries that name it.

    Raises:
        ValueError: wrong shapes or dtypes.
        BackendUnavailableError: `impl` can't run here.
    """
    if x.ndim != 3 or not x.is_floating_point():
        raise ValueError(f"x must be floating [B, V, C], got {x.dtype} {list(x.shape)}")
    if table.ndim != 2 or table.shape[1] != x.shape[2] or table.dtype != x.dtype:
        raise ValueError(
            f"table must be {x.dtype} [N, {x.shape[2]}], got {table.dtype} {list(table.shape)}"
        )
    check_index(index, x.shape[0])
    out: Tensor = _APPEND_ROWS(impl, x, table, index)
    return out


def _forward_reference(x: Tensor, table: Tensor, index: Tensor) -> Tensor:
    return torch.cat([x, table[index.long()]], dim=1)


def _backward_reference(grad: Tensor, index: Tensor, rows: int) -> Tensor:
    """The table's gradient, [rows, C], of the result's [B, V + M, C]; that of `x` is a slice."""
    compute = torch.promote_types(grad.dtype, torch.float32)
    appended = grad[:, grad.shape[1] - index.shape[1] :].to(compute)
    out = grad.new_zeros((rows, grad.shape[2]), dtype=compute)
    return out.index_add_(0, index.flatten().long(), appended.flatten(0, 1)).to(grad.dtype)


_APPEND_ROWS = declare(
    "append_rows",
    _forward_reference,
    triton=triton("append_rows", "append_rows"),
    native=native(tokens.append_rows),
    gradient=Gradient(
        _backward_reference,
        of=("x", "table"),
        backends={
            "triton": triton("append_rows", "append_rows_backward"),
            "native": native(in_fp32(tokens.append_rows_backward, "grad"), dtypes=FP32_BF16),
        },
        keep=lambda table, index: (index, table.shape[0]),
        finish=lambda result, grad, index: (grad[:, : grad.shape[1] - index.shape[1]], result),
    ),
)
