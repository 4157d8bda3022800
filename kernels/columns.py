"""Sums over rows without atomics: what the programs of a backward kernel left, added up in order.

Such a kernel's programs each sum a run of rows into one row of `partial`; this adds those rows. The
order depends on the number of programs alone, so that repeated runs are equal bit for bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from videomae_fast.kernels.host import cdiv, power_of_2


@dataclass(frozen=True)
class Launch:
    """16 columns (64 B) give many programs; all rows of most kernels are in flight at once.

    Timed on an H100 against 64 columns and 32 rows: `partial` is a few percent of the main kernel's
    bytes and was just written, so it comes from L2, and what the sums take is how often they wait
    for it.

    Attributes:
        rows: at a time, at most: 512 are eight loads of 16 bytes per lane.
    """

    rows: int = 512
    columns: int = 16
    num_warps: int = 8


LAUNCH = Launch()


@triton.jit
def _sum_columns(
    partial_ptr,  # [n_sums, n_rows, n_cols], fp32
    out_0_ptr,  # [n_cols]
    out_1_ptr,  # [n_cols] or None
    out_2_ptr,  # [n_cols] or None
    out_3_ptr,  # [n_cols] or None
    n_rows,
    n_cols,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    i_sum = tl.program_id(1)
    o_col = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    m_col = o_col < n_cols
    p_partial = partial_ptr + i_sum.to(tl.int64) * n_rows * n_cols
    b_sum = tl.zeros([ROWS, COLUMNS], tl.float32)
    for i_row in range(0, n_rows, ROWS):
        o_row = i_row + tl.arange(0, ROWS)
        o_block = o_row[:, None].to(tl.int64) * n_cols + o_col[None, :]
        m_block = (o_row < n_rows)[:, None] & m_col[None, :]
        b_sum += tl.load(p_partial + o_block, mask=m_block, other=0.0)
    b_out = tl.sum(b_sum, 0)
    if i_sum == 0:
        tl.store(out_0_ptr + o_col, b_out.to(out_0_ptr.dtype.element_ty), mask=m_col)
    # What is None is known when the kernel is compiled, `i_sum` is not: two conditions.
    if out_1_ptr is not None:  # noqa: SIM102
        if i_sum == 1:
            tl.store(out_1_ptr + o_col, b_out.to(out_1_ptr.dtype.element_ty), mask=m_col)
    if out_2_ptr is not None:  # noqa: SIM102
        if i_sum == 2:
            tl.store(out_2_ptr + o_col, b_out.to(out_2_ptr.dtype.element_ty), mask=m_col)
    if out_3_ptr is not None:  # noqa: SIM102
        if i_sum == 3:
            tl.store(out_3_ptr + o_col, b_out.to(out_3_ptr.dtype.element_ty), mask=m_col)


def sum_columns(partial: Tensor, outs: Sequence[Tensor]) -> None:
    """Writes ``partial[k].sum(0)`` into ``outs[k]``.

    Args:
        partial: fp32 [n_sums, n_rows, n_cols], contiguous; one to four sums.
        outs: one contiguous [n_cols] for each, of any floating type.
    """
    sums, rows, columns = partial.shape
    padded = [*outs, *[None] * (4 - len(outs))]
    grid = (cdiv(columns, LAUNCH.columns), sums)
    with torch.cuda.device_of(partial):
        _sum_columns[grid](
            partial,
            *padded,
            rows,
            columns,
            ROWS=min(LAUNCH.rows, power_of_2(max(1, rows))),
            COLUMNS=LAUNCH.columns,
            num_warps=LAUNCH.num_warps,
        )
