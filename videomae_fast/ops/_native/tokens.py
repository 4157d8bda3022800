"""The native ops along the token axis: gather, scatter, sequence assembly, shared rows.

A token position that is out of range is an IndexError.
"""

from __future__ import annotations

import torch
from torch import Tensor

from videomae_fast.arguments import Arguments, contiguous
from videomae_fast.ops._native.calls import call


def token_gather(args: Arguments) -> Tensor:
    x, index = args.x.contiguous(), args.index.contiguous()
    (batch, tokens, width), per_clip = x.shape, index.shape[1]
    out: Tensor = x.new_empty((batch, per_clip, width))
    sizes = (width * x.dtype.itemsize, batch, tokens, per_clip)
    call("vmf_token_gather", "pppiiii", x, index, out, *sizes, index=(index,))
    return out


def token_scatter(args: Arguments) -> Tensor:
    """Of fp32; repeated positions add up in their order."""
    x, index = args.x.contiguous(), args.index.contiguous()
    batch, per_clip, width = x.shape
    out: Tensor = x.new_empty((batch, args.tokens, width))
    sizes = (width, batch, args.tokens, per_clip)
    call("vmf_token_scatter", "pppiiii", x, index, out, *sizes, index=(index,))
    return out


def decoder_assembly(args: Arguments) -> Tensor:
    """Of fp32."""
    values = contiguous(args.visible, args.mask_token, args.positions)
    index = contiguous(args.visible_index, args.decoder_index)
    (batch, seen, width), hidden = args.visible.shape, args.decoder_index.shape[-1]
    out: Tensor = args.visible.new_empty((batch, seen + hidden, width))
    sizes = (batch, seen, hidden, args.positions.shape[0], width)
    call("vmf_decoder_assembly", "ppppppiiiii", *values, *index, out, *sizes, index=index)
    return out


def decoder_assembly_backward(args: Arguments) -> tuple[Tensor, Tensor]:
    """Of fp32; the mask token's is the same for any thread count."""
    grad = args.grad.contiguous()
    (batch, length, width), seen = grad.shape, args.visible_tokens
    grad_visible: Tensor = grad.new_empty((batch, seen, width))
    grad_mask = torch.empty(width, dtype=args.dtype)
    sizes = (batch, seen, length - seen, width)
    call("vmf_decoder_assembly_backward", "pppiiii", grad, grad_visible, grad_mask, *sizes)
    return grad_visible, grad_mask


def append_rows(args: Arguments) -> Tensor:
    x, table, index = contiguous(args.x, args.table, args.index)
    (batch, own, width), rows, appended = x.shape, table.shape[0], index.shape[-1]
    out: Tensor = x.new_empty((batch, own + appended, width))
    sizes = (width * x.dtype.itemsize, batch, own, rows, appended)
    call("vmf_append_rows", "ppppiiiii", x, table, index, out, *sizes, index=(index,))
    return out


def append_rows_backward(args: Arguments) -> Tensor:
    """Of fp32, added in the order of clips and lists."""
    grad, index = args.grad.contiguous(), args.index.contiguous()
    (batch, length, width), appended = grad.shape, index.shape[-1]
    out: Tensor = grad.new_empty((args.rows, width))
    sizes = (width, batch, length - appended, args.rows, appended)
    call("vmf_append_rows_backward", "pppiiiii", grad, index, out, *sizes, index=(index,))
    return out
