"""Attention of packed queries, keys and values: the launchers; the kernels are attention's.

They write the three gradients where one buffer holds them, and leave a row of sums for each block
of tokens, which `sum_columns` adds up to the biases' gradients. See docs/kernels/attention.md.
"""

from __future__ import annotations

import torch
from torch import Tensor

from videomae_fast.arguments import Arguments
from videomae_fast.kernels import attention
from videomae_fast.kernels import attention_flash as flash
from videomae_fast.kernels import attention_short as short
from videomae_fast.kernels.columns import sum_columns


def forward(args: Arguments) -> tuple[Tensor, Tensor]:
    """`forward` of kernels/attention.py, of what one tensor holds; see ops/packed_attention.py."""
    return attention.forward_of(_views(args.packed, args.query), args.key_count)


def _views(packed: Tensor, query: Tensor | None) -> attention.Heads:
    first, second, *third = packed.unbind(2)
    return (first, second, third[0]) if query is None else (query, first, second)


def backward(
    args: Arguments, *, use_short: bool | None = None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of packed, query and both biases, empty where there is none or it is not needed;
    see ops/packed_attention.py. All parts of packed's are written where they belong.

    Raises:
        ValueError: a clip's packed values are out of the kernels' reach.
    """
    packed, query = args.packed, args.query
    reach = packed.shape[1:].numel()
    if reach > attention.FARTHEST:
        raise ValueError(
            f"packed_attention: a clip has {reach} values ({packed.shape[1]} tokens), and the "
            f'Triton kernels reach {attention.FARTHEST}; impl="sdpa" takes it'
        )
    grad_packed = torch.empty(packed.shape, dtype=packed.dtype, device=packed.device)
    of_query = None
    if query is not None:
        of_query = torch.empty(query.shape, dtype=query.dtype, device=query.device)
    heads = _views(packed, query)
    asking = heads[0]
    if use_short is None:
        use_short = attention.is_short(asking, heads[1])
    biases = (
        args.q_bias if args.needs_q_bias else None,
        args.v_bias if args.needs_v_bias else None,
    )
    learnt = [bias for bias in biases if bias is not None]
    blocks = _blocks(asking, use_short=use_short)
    sums = packed.new_empty((len(learnt), blocks, asking.shape[2:].numel()), dtype=torch.float32)
    rows = iter(sums)
    of_bias = [None if bias is None else next(rows) for bias in biases]
    into = attention.Into(*_views(grad_packed, of_query), *of_bias)
    attention.backward_into(args, heads, into, use_short=use_short)
    totals = [torch.empty(bias.shape, dtype=bias.dtype, device=bias.device) for bias in learnt]
    if totals:
        sum_columns(sums, totals)
    empty = packed.new_empty
    left = iter(totals)
    of_q_bias, of_v_bias = (empty(0) if bias is None else next(left) for bias in biases)
    return grad_packed, empty(0) if of_query is None else of_query, of_q_bias, of_v_bias


def _blocks(query: Tensor, *, use_short: bool) -> int:
    """How many blocks of queries there are, over all clips: each leaves a row of sums."""
    clips, queries, _, dim = query.shape
    if query.numel() == 0:
        return 0
    if use_short:
        return clips * short.backward_blocks(queries, dim, query.device)
    _, by_query, _ = flash.launches(dim, query.element_size())
    return clips * -(-queries // by_query.queries)
