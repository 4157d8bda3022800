"""The native ops along the token axis: gather, scatter, sequence assembly, shared rows.

A token position that is out of range is an IndexError.
"""

from __future__ import annotations

import torch
from torch import Tensor

from videomae_fast.ops._native.calls import Arguments, call, contiguous


def token_gather(args: Arguments) -> Tensor:
    x, index = contiguous(args.x, args.index)
    (batch, tokens, width), per_clip = x.shape, index.shape[1]
    out = torch.empty((batch, per_clip, width), dtype=x.dtype)
    sizes = (width * x.dtype.itemsize, batch, tokens, per_clip)
    call("vmf_token_gather", "pppiiii", x, index, out, *sizes, index=(index,))
    return out


def token_scatter(args: Arguments) -> Tensor:
    """Of fp32; repeated positions add up in their order."""
    x, index = contiguous(args.x, args.index)
    batch, per_clip, width = x.shape
    out = torch.empty((batch, args.tokens, width), dtype=x.dtype)
    sizes = (width, batch, args.tokens, per_clip)
    call("vmf_token_scatter", "pppiiii", x, index, out, *sizes, index=(index,))
    return out


def decoder_assembly(args: Arguments) -> Tensor:
    """Of fp32."""
    values = contiguous(args.visible, args.mask_token, args.positions)
    index = contiguous(args.visible_index, args.decoder_index)
    (batch, seen, width), hidden = args.visible.shape, args.decoder_index.shape[-1]
    out = torch.empty((batch, seen + hidden, width), dtype=args.visible.dtype)
    sizes = (batch, seen, hidden, args.positions.shape[0], width)
    call("vmf_decoder_assembly", "ppppppiiiii", *values, *index, out, *sizes, index=index)
    return out


def decoder_assembly_backward(args: Arguments) -> tuple[Tensor, Tensor]:
    """Of fp32; the mask token's is the same for any thread count."""
    (grad,) = contiguous(args.grad)
    (batch, length, width), seen = grad.shape, args.visible_tokens
    grad_visible = torch.empty((batch, seen, width), dtype=grad.dtype)
    grad_mask = torch.empty(width, dtype=args.dtype)
    sizes = (batch, seen, length - seen, width)
    call("vmf_decoder_assembly_backward", "pppiiii", grad, grad_visible, grad_mask, *sizes)
    return grad_visible, grad_mask


def append_rows(args: Arguments) -> Tensor:
    x, table, index = contiguous(args.x, args.table, args.index)
    (batch, own, width), rows, appended = x.shape, table.shape[0], index.shape[-1]
    out = torch.empty((batch, own + appended, width), dtype=x.dtype)
    sizes = (width * x.dtype.itemsize, batch, own, rows, appended)
    call("vmf_append_rows", "ppppiiiii", x, table, index, out, *sizes, index=(index,))
    return out


def append_rows_backward(args: Arguments) -> Tensor:
    """Of fp32, added in the order of clips and lists."""
    grad, index = contiguous(args.grad, args.index)
    (batch, length, width), appended = grad.shape, index.shape[-1]
    out = torch.empty((args.rows, width), dtype=grad.dtype)
    sizes = (width, batch, length - appended, args.rows, appended)
    call("vmf_append_rows_backward", "pppiiiii", grad, index, out, *sizes, index=(index,))
    return out
