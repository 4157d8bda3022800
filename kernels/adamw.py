"""AdamW of many tensors in one launch, with bf16 copies of the weights: one pass over each value.

A matmul's gradient comes in bf16, weights and moments are fp32, and forward and backward want the
weights in bf16 again. torch's fused kernel wants one dtype, so gradients are cast before it and
weights after it: 12 bytes a value more than the 28 of this pass. See docs/kernels/adamw.md.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from videomae_fast.kernels.host import cdiv


@dataclass(frozen=True)
class Launch:
    """A program updates `block` neighbouring values of one tensor: 16 a lane, so that enough loads
    are in flight. 887 µs for the 94 million values of ViT-B on an H100; others were not tried.
    """

    block: int = 4096
    num_warps: int = 8


LAUNCH = Launch()
COLUMNS = 5  # of a table of addresses: weight, exp_avg, exp_avg_sq, gradient, copy (0: none)


@triton.jit
def _update(
    addresses_ptr,  # [n_tensors, 5] int64: see COLUMNS; each divisible by 16
    sizes_ptr,  # [n_tensors] int64, values
    groups_ptr,  # [n_tensors] int32, which of `rates` and `decays`
    blocks_ptr,  # [programs, 2] int32: tensor, number of the block in it
    rates_ptr,  # [n_groups], fp32
    decays_ptr,  # [n_groups], fp32
    step_ptr,  # scalar, fp32: number of this update, from 1
    scale_ptr,  # scalar, fp32: divides the gradients
    skip_ptr,  # scalar, fp32: where it is not 0 nothing is written
    beta1,
    beta2,
    log_beta1,  # to base 2
    log_beta2,
    rest1,  # 1 - beta1, which fp32 would not get from it
    rest2,
    eps,
    GRAD: tl.constexpr,  # dtype of the gradients, and of the copies
    COPIES: tl.constexpr,
    COLUMNS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    i_tensor = tl.load(blocks_ptr + 2 * tl.program_id(0))
    i_block = tl.load(blocks_ptr + 2 * tl.program_id(0) + 1)
    skip = tl.load(skip_ptr)
    n_left = tl.load(sizes_ptr + i_tensor) - i_block.to(tl.int64) * BLOCK
    # Of a step that is left out nothing is read either
    n_values = tl.where(skip == 0.0, tl.minimum(n_left, BLOCK), 0).to(tl.int32)
    i_group = tl.load(groups_ptr + i_tensor)
    rate, decay = tl.load(rates_ptr + i_group), tl.load(decays_ptr + i_group)
    step = tl.load(step_ptr)
    # 1 - beta ** step, without the cancellation of small steps
    correction1 = _one_minus_power(log_beta1, step)
    correction2 = _one_minus_power(log_beta2, step)
    inverse_scale = 1.0 / tl.load(scale_ptr)

    o_value = i_block.to(tl.int64) * BLOCK
    p_row = addresses_ptr + i_tensor * COLUMNS
    p_weight = _pointer(p_row, tl.float32) + o_value
    p_first = _pointer(p_row + 1, tl.float32) + o_value
    p_second = _pointer(p_row + 2, tl.float32) + o_value
    p_grad = _pointer(p_row + 3, GRAD) + o_value
    p_copy = _pointer(p_row + 4, GRAD) + o_value
    # A whole block needs no mask, and only then do lanes load 16 bytes at once
    if n_values == BLOCK:
        _update_block(
            p_weight, p_first, p_second, p_grad, p_copy, None, rate, decay, correction1,
            correction2, inverse_scale, beta1, beta2, rest1, rest2, eps, COPIES, BLOCK,
        )  # fmt: skip
    elif n_values > 0:
        _update_block(
            p_weight, p_first, p_second, p_grad, p_copy, n_values, rate, decay, correction1,
            correction2, inverse_scale, beta1, beta2, rest1, rest2, eps, COPIES, BLOCK,
        )  # fmt: skip


@triton.jit
def _update_block(
    p_weight,
    p_first,
    p_second,
    p_grad,
    p_copy,
    n_values,  # of the block, or None: all
    rate,
    decay,
    correction1,
    correction2,
    inverse_scale,
    beta1,
    beta2,
    rest1,
    rest2,
    eps,
    COPIES: tl.constexpr,
    BLOCK: tl.constexpr,
):
    o_block = tl.arange(0, BLOCK)
    m_block = None if n_values is None else o_block < n_values
    b_grad = tl.load(p_grad + o_block, mask=m_block).to(tl.float32) * inverse_scale
    b_weight = tl.load(p_weight + o_block, mask=m_block)
    b_first = tl.load(p_first + o_block, mask=m_block)
    b_second = tl.load(p_second + o_block, mask=m_block)
    b_weight -= rate * decay * b_weight
    b_first = beta1 * b_first + rest1 * b_grad
    b_second = beta2 * b_second + rest2 * b_grad * b_grad
    b_root = tl.sqrt(b_second) / tl.sqrt(correction2) + eps
    b_weight -= rate / correction1 * b_first / b_root
    tl.store(p_weight + o_block, b_weight, mask=m_block)
    tl.store(p_first + o_block, b_first, mask=m_block)
    tl.store(p_second + o_block, b_second, mask=m_block)
    if COPIES:
        tl.store(p_copy + o_block, b_weight.to(p_copy.dtype.element_ty), mask=m_block)


@triton.jit
def _pointer(p_address, DTYPE: tl.constexpr):
    """What is at an address; four values at once, of every dtype: so all lie in the same lanes."""
    address = tl.load(p_address).to(tl.pointer_type(DTYPE))
    return tl.multiple_of(address, 4 * DTYPE.primitive_bitwidth // 8)


@triton.jit
def _one_minus_power(log_beta, step):
    """1 - 2 ** (log_beta step), in fp64: at the first steps of a beta near 1 it cancels."""
    return (1.0 - tl.exp2(step.to(tl.float64) * log_beta)).to(tl.float32)


AT_ONCE = 16


@triton.jit(do_not_specialize=["i_start", "n_values", *(f"a{i}" for i in range(AT_ONCE))])
def _write_addresses(
    addresses_ptr,  # [n_tensors, 5] int64
    i_start,
    n_values,  # how many of the following
    a0, a1, a2, a3, a4, a5, a6, a7, a8, a9, a10, a11, a12, a13, a14, a15,
    COLUMNS: tl.constexpr,
):  # fmt: skip
    p_first = addresses_ptr + i_start * COLUMNS + 3
    tl.store(p_first + 0 * COLUMNS, a0, mask=n_values > 0)
    tl.store(p_first + 1 * COLUMNS, a1, mask=n_values > 1)
    tl.store(p_first + 2 * COLUMNS, a2, mask=n_values > 2)
    tl.store(p_first + 3 * COLUMNS, a3, mask=n_values > 3)
    tl.store(p_first + 4 * COLUMNS, a4, mask=n_values > 4)
    tl.store(p_first + 5 * COLUMNS, a5, mask=n_values > 5)
    tl.store(p_first + 6 * COLUMNS, a6, mask=n_values > 6)
    tl.store(p_first + 7 * COLUMNS, a7, mask=n_values > 7)
    tl.store(p_first + 8 * COLUMNS, a8, mask=n_values > 8)
    tl.store(p_first + 9 * COLUMNS, a9, mask=n_values > 9)
    tl.store(p_first + 10 * COLUMNS, a10, mask=n_values > 10)
    tl.store(p_first + 11 * COLUMNS, a11, mask=n_values > 11)
    tl.store(p_first + 12 * COLUMNS, a12, mask=n_values > 12)
    tl.store(p_first + 13 * COLUMNS, a13, mask=n_values > 13)
    tl.store(p_first + 14 * COLUMNS, a14, mask=n_values > 14)
    tl.store(p_first + 15 * COLUMNS, a15, mask=n_values > 15)


_DTYPES = {torch.float32: tl.float32, torch.bfloat16: tl.bfloat16, torch.float16: tl.float16}


class Tensors:
    """Where the launch finds its tensors: fixed but for the addresses, which a step may change.

    Args:
        sizes: values of each tensor.
        groups: the number of each tensor's group.
        dtype: of all gradients, and of the copies.
        copies: whether there are some.
        device: theirs.
    """

    def __init__(
        self,
        sizes: Sequence[int],
        groups: Sequence[int],
        *,
        dtype: torch.dtype,
        copies: bool,
        device: torch.device,
    ) -> None:
        blocks = [
            (i, block) for i, size in enumerate(sizes) for block in range(cdiv(size, LAUNCH.block))
        ]
        self.programs = len(blocks)
        self.dtype, self.copies = dtype, copies
        self.sizes = torch.tensor(sizes, dtype=torch.int64, device=device)
        self.groups = torch.tensor(groups, dtype=torch.int32, device=device)
        self.blocks = torch.tensor(blocks, dtype=torch.int32, device=device).reshape(-1, 2)
        self.addresses = torch.zeros((len(sizes), COLUMNS), dtype=torch.int64, device=device)


def update(
    tensors: Tensors,
    rates: Tensor,
    decays: Tensor,
    step: Tensor,
    scale: Tensor,
    skip: Tensor,
    *,
    betas: tuple[float, float],
    eps: float,
) -> None:
    """One update of all tensors whose addresses are in the table; see ops/adamw.py."""
    if tensors.programs == 0:
        return
    with torch.cuda.device_of(tensors.addresses):
        _update[(tensors.programs,)](
            tensors.addresses,
            tensors.sizes,
            tensors.groups,
            tensors.blocks,
            rates,
            decays,
            step,
            scale,
            skip,
            *betas,
            *(math.log2(beta) for beta in betas),
            *(1 - beta for beta in betas),
            eps,
            GRAD=_DTYPES[tensors.dtype],
            COPIES=tensors.copies,
            COLUMNS=COLUMNS,
            BLOCK=LAUNCH.block,
            num_warps=LAUNCH.num_warps,
        )


def write_addresses(tensors: Tensors, gradients: Sequence[int]) -> None:
    """Writes the gradients' column by launches that hold the addresses themselves.

    So they are part of a recorded step, which may not wait for what lies on the host.
    """
    with torch.cuda.device_of(tensors.addresses):
        for start in range(0, len(gradients), AT_ONCE):
            some = list(gradients[start : start + AT_ONCE])
            # One type for all: a missing one is as long as the others
            values = some + some[:1] * (AT_ONCE - len(some))
            _write_addresses[(1,)](
                tensors.addresses, start, len(some), *values, COLUMNS=COLUMNS, num_warps=1
            )
