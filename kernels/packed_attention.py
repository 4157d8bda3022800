"""Attention of packed queries, keys and values: the launchers; the kernels are attention's.

They write the three gradients where one buffer holds them, and leave a row of sums for each block
of tokens, which `sum_columns` adds up to the biases' gradients. See docs/kernels/attention.md.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
from torch import Tensor

from videomae_fast.kernels import attention
from videomae_fast.kernels import attention_flash as flash
from videomae_fast.kernels import attention_short as short
from videomae_fast.kernels.columns import sum_columns
from videomae_fast.kernels.head_blocks import pieces


def forward(
    packed: Tensor,
    query: Tensor | None,
    q_bias: Tensor | None,
    v_bias: Tensor | None,
    key_count: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """`forward` of kernels/attention.py, of what one tensor holds; see ops/packed_attention.py."""
    return attention.forward(*_views(packed, query), key_count)


def _views(packed: Tensor, query: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values."""
    first, second, *third = packed.unbind(2)
    return (first, second, third[0]) if query is None else (query, first, second)


def backward(
    grad: Tensor,
    packed: Tensor,
    query: Tensor | None,
    q_bias: Tensor | None,
    v_bias: Tensor | None,
    key_count: Tensor | None,
    out: Tensor,
    lse: Tensor,
    needs_q_bias: bool,
    needs_v_bias: bool,
    *,
    use_short: bool | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of packed, query and both biases, empty where there is none or it is not needed;
    see ops/packed_attention.py. All parts of packed's are written where they belong.

    Raises:
        ValueError: a clip's packed values are out of the kernels' reach.
    """
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
    asking, key, value = _views(packed, query)
    if use_short is None:
        use_short = attention.is_short(asking, key)
    biases = (q_bias if needs_q_bias else None, v_bias if needs_v_bias else None)
    sums = _sums(asking, key, biases, use_short=use_short)
    saved = (grad, asking, key, value, key_count, out, lse)
    attention.backward_into(
        *saved, use_short=use_short, into=attention.Into(*_views(grad_packed, of_query), *sums.rows)
    )
    of_query_bias, of_value_bias = sums.added(biases, packed.device)
    grad_query = packed.new_empty(0) if of_query is None else of_query
    return grad_packed, grad_query, of_query_bias, of_value_bias


class _Sums(NamedTuple):
    """What the programs leave for the biases' gradients: a row for each block of tokens.

    Attributes:
        rows: of queries and of values, fp32 [blocks of all clips, heads * head dim], or None.
        both: the two as one tensor [2, ...], where they have as many rows: one launch adds them up.
    """

    rows: tuple[Tensor | None, Tensor | None]
    both: Tensor | None

    def added(
        self, biases: tuple[Tensor | None, Tensor | None], device: torch.device
    ) -> tuple[Tensor, Tensor]:
        """The gradients of both biases; empty where there is none."""
        found = []
        for bias, rows in zip(biases, self.rows, strict=True):
            if bias is None or rows is None:
                found.append(torch.empty(0, device=device))
                continue
            found.append(torch.empty(bias.shape, dtype=bias.dtype, device=bias.device))
            if self.both is None:
                sum_columns(rows[None], [found[-1]])
        if self.both is not None:
            sum_columns(self.both, found)
        return found[0], found[1]


def _sums(
    query: Tensor,
    key: Tensor,
    biases: tuple[Tensor | None, Tensor | None],
    *,
    use_short: bool,
) -> _Sums:
    clips, _, heads, dim = query.shape
    if use_short:
        most = short.backward_launch(dim).keys
        blocks = [len(pieces(x.shape[1], most=most)) for x in (query, key)]
    else:
        _, by_query, by_key = flash.launches(dim, query.element_size())
        sizes = ((query, by_query.queries), (key, by_key.keys))
        blocks = [triton.cdiv(x.shape[1], size) for x, size in sizes]

    def room(*sizes: int) -> Tensor:
        return torch.empty((*sizes, heads * dim), dtype=torch.float32, device=query.device)

    counts = [0 if query.numel() == 0 else clips * count for count in blocks]
    if counts[0] == counts[1] and None not in biases:
        both = room(2, counts[0])
        return _Sums((both[0], both[1]), both)
    of_q, of_v = (
        None if bias is None else room(count) for bias, count in zip(biases, counts, strict=True)
    )
    return _Sums((of_q, of_v), None)
