"""Rows of a table that all clips share, appended to each clip's own rows."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from videomae_fast.ops import _native
from videomae_fast.ops._derivatives import first_only
from videomae_fast.ops._dispatch import (
    Backend,
    always,
    lazy,
    needs_native,
    needs_triton,
    register,
)
from videomae_fast.ops.checks import check_index


def append_rows(x: Tensor, table: Tensor, index: Tensor, *, impl: str = "auto") -> Tensor:
    """Each clip's own rows, then those of the table at its index, in one pass.

    ``out[b, :V] = x[b]`` and ``out[b, V:] = table[index[b]]``: a concatenation with an embedding.

    Args:
        x: [B, V, C], any floating dtype.
        table: [N, C], dtype of `x`.
        index: int32 [B, M] in 0..N-1 (not checked on a GPU); positions may repeat.

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
    out: Tensor = _append_rows(x, table, index, impl)
    return out


@torch.library.custom_op("videomae_fast::append_rows", mutates_args=())
def _append_rows(x: Tensor, table: Tensor, index: Tensor, impl: str) -> Tensor:
    out: Tensor = FORWARD(impl, x, table, index)
    return out


@_append_rows.register_fake
def _(x: Tensor, table: Tensor, index: Tensor, impl: str) -> Tensor:
    return x.new_empty((x.shape[0], x.shape[1] + index.shape[1], x.shape[2]))


@torch.library.custom_op("videomae_fast::append_rows_backward", mutates_args=())
def _append_rows_backward(grad: Tensor, index: Tensor, rows: int, impl: str) -> Tensor:
    """The table's gradient, [rows, C], of the result's [B, V + M, C]; that of `x` is a slice."""
    out: Tensor = BACKWARD(impl, grad, index, rows)
    return out


@_append_rows_backward.register_fake
def _(grad: Tensor, index: Tensor, rows: int, impl: str) -> Tensor:
    return grad.new_empty((rows, grad.shape[2]))


def _setup(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor, str], output: Tensor) -> None:
    x, table, index, impl = inputs
    ctx.save_for_backward(index)
    ctx.own, ctx.rows, ctx.impl = x.shape[1], table.shape[0], impl


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None, None]:
    (index,) = ctx.saved_tensors
    return grad[:, : ctx.own], _append_rows_backward(grad, index, ctx.rows, ctx.impl), None, None


_append_rows.register_autograd(_backward, setup_context=_setup)
first_only(_append_rows_backward, "append_rows")


def _forward_reference(x: Tensor, table: Tensor, index: Tensor) -> Tensor:
    return torch.cat([x, table[index.long()]], dim=1)


def _backward_reference(grad: Tensor, index: Tensor, rows: int) -> Tensor:
    compute = torch.promote_types(grad.dtype, torch.float32)
    appended = grad[:, grad.shape[1] - index.shape[1] :].to(compute)
    out = grad.new_zeros((rows, grad.shape[2]), dtype=compute)
    return out.index_add_(0, index.flatten().long(), appended.flatten(0, 1)).to(grad.dtype)


def _forward_native_why_not(x: Tensor, table: Tensor, index: Tensor) -> str | None:
    return needs_native(x, table, index)


def _backward_native_why_not(grad: Tensor, index: Tensor, rows: int) -> str | None:
    if grad.dtype != torch.float32:
        return f"the native library adds up fp32, not {grad.dtype}"
    return needs_native(grad, index)


def _triton_why_not(x: Tensor, *rest: Tensor | int) -> str | None:
    if x.dtype not in (torch.float32, torch.bfloat16, torch.float16):
        return f"the kernels take fp32, bf16 and fp16, not {x.dtype}"
    return needs_triton(x, *(one for one in rest if isinstance(one, Tensor)))


FORWARD = register(
    "append_rows",
    triton=Backend(lazy("append_rows", "append_rows"), _triton_why_not),
    native=Backend(_native.append_rows, _forward_native_why_not),
    reference=Backend(_forward_reference, always),
)
BACKWARD = register(
    "append_rows_backward",
    triton=Backend(lazy("append_rows", "append_rows_backward"), _triton_why_not),
    native=Backend(_native.append_rows_backward, _backward_native_why_not),
    reference=Backend(_backward_reference, always),
)
