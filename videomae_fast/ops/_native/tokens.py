"""The native ops along the token axis: gather, scatter, sequence assembly, shared rows."""

from __future__ import annotations

import torch
from torch import Tensor

from videomae_fast.ops._native.calls import call, contiguous


def token_gather(x: Tensor, index: Tensor) -> Tensor:
    """``out[b, k] = x[b, index[b, k]]``.

    Args:
        x: [B, N, D], any dtype.
        index: int32 [B, K].

    Returns:
        [B, K, D], dtype of `x`.

    Raises:
        IndexError: a position outside 0..N-1.
    """
    batch, tokens, width = x.shape
    x, index = contiguous(x, index)
    out = x.new_empty((batch, index.shape[1], width))
    sizes = (width * x.dtype.itemsize, batch, tokens, index.shape[1])
    call("vmf_token_gather", "pppiiii", x, index, out, *sizes, index=(index,))
    return out


def token_scatter(x: Tensor, index: Tensor, tokens: int) -> Tensor:
    """``out[b, index[b, k]] += x[b, k]`` into zeros; repeated positions add up in their order.

    Args:
        x: fp32 [B, K, D].
        index: int32 [B, K].
        tokens: N.

    Returns:
        fp32 [B, N, D].

    Raises:
        IndexError: a position outside 0..N-1.
    """
    batch, per_clip, width = x.shape
    x, index = contiguous(x, index)
    out = x.new_empty((batch, tokens, width))
    sizes = (width, batch, tokens, per_clip)
    call("vmf_token_scatter", "pppiiii", x, index, out, *sizes, index=(index,))
    return out


def decoder_assembly(
    visible: Tensor,
    mask_token: Tensor,
    positions: Tensor,
    visible_index: Tensor,
    decoder_index: Tensor,
) -> Tensor:
    """Visible tokens, then mask tokens, each with its position added, in one pass.

    Args:
        visible: fp32 [B, V, D].
        mask_token: fp32 [D].
        positions: fp32 [N, D].
        visible_index: int32 [B, V].
        decoder_index: int32 [B, M].

    Returns:
        fp32 [B, V + M, D].

    Raises:
        IndexError: a position outside 0..N-1.
    """
    batch, seen, width = visible.shape
    hidden, tokens = decoder_index.shape[-1], positions.shape[0]
    visible, mask_token, positions = contiguous(visible, mask_token, positions)
    visible_index, decoder_index = contiguous(visible_index, decoder_index)
    out = visible.new_empty((batch, seen + hidden, width))
    call(
        "vmf_decoder_assembly",
        "ppppppiiiii",
        visible,
        mask_token,
        positions,
        visible_index,
        decoder_index,
        out,
        batch,
        seen,
        hidden,
        tokens,
        width,
        index=(visible_index, decoder_index),
    )
    return out


def decoder_assembly_backward(
    grad: Tensor, visible_tokens: int, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """The gradients of the visible tokens, fp32 [B, V, D], and of the mask token, fp32 [D].

    The mask token's is summed over all clips; the same bits for any thread count.
    """
    batch, length, width = grad.shape
    (grad,) = contiguous(grad)
    grad_visible = grad.new_empty((batch, visible_tokens, width))
    grad_mask = grad.new_empty(width, dtype=dtype)
    sizes = (batch, visible_tokens, length - visible_tokens, width)
    call("vmf_decoder_assembly_backward", "pppiiii", grad, grad_visible, grad_mask, *sizes)
    return grad_visible, grad_mask


def append_rows(x: Tensor, table: Tensor, index: Tensor) -> Tensor:
    """``out[b, :V] = x[b]`` and ``out[b, V + k] = table[index[b, k]]``.

    Args:
        x: [B, V, C], any dtype.
        table: [N, C], dtype of `x`.
        index: int32 [B, M].

    Returns:
        [B, V + M, C], dtype of `x`.

    Raises:
        IndexError: a position outside 0..N-1.
    """
    batch, own, width = x.shape
    rows, appended = table.shape[0], index.shape[-1]
    x, table, index = contiguous(x, table, index)
    out = x.new_empty((batch, own + appended, width))
    sizes = (width * x.dtype.itemsize, batch, own, rows, appended)
    call("vmf_append_rows", "ppppiiiii", x, table, index, out, *sizes, index=(index,))
    return out


def append_rows_backward(grad: Tensor, index: Tensor, rows: int) -> Tensor:
    """The table's gradient: ``out[index[b, k]] += grad[b, V + k]`` into zeros.

    Added in the order of clips and lists; the same bits for any thread count.

    Args:
        grad: fp32 [B, V + M, C].
        index: int32 [B, M].
        rows: N.

    Returns:
        fp32 [N, C].

    Raises:
        IndexError: a position outside 0..N-1.
    """
    batch, length, width = grad.shape
    appended = index.shape[-1]
    grad, index = contiguous(grad, index)
    out = grad.new_empty((rows, width))
    sizes = (width, batch, length - appended, rows, appended)
    call("vmf_append_rows_backward", "pppiiiii", grad, index, out, *sizes, index=(index,))
    return out
