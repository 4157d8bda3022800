"""Normalised-pixel MSE straight from uint8 frames: the loss, the prediction's gradient, or both.

One program takes one token: bytes and prediction are read together, the statistics found, and the
differences taken from what is in registers. A backward pass of its own finds the very same target
instead of reading it from memory.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from videomae_fast.arguments import Arguments, contiguous
from videomae_fast.kernels.alignment import alignment
from videomae_fast.kernels.cubes import dense_pixels
from videomae_fast.kernels.host import cdiv, power_of_2
from videomae_fast.kernels.pixel_target import difference, token_and_statistics


@dataclass(frozen=True)
class Launch:
    """Launch choices; modelled, not yet measured on a GPU.

    Attributes:
        values: most values of a tile. A 2×16×16 cube is 32 rows of 48 values, padded to 64: one
            tile of 2048, 64 values a lane.
        num_warps: 1: sums need shuffles and no barrier.
        run: token losses that one program adds up, so that all of a batch's are two short steps.
        sum_block, sum_warps: of a tile of that program.
    """

    values: int = 2048
    num_warps: int = 1
    num_stages: int = 1
    run: int = 8192
    sum_block: int = 2048
    sum_warps: int = 8


LAUNCH = Launch()


@triton.jit
def _store_gradient(
    out_ptr, i_token, start, b_gradient, TUBELET: tl.constexpr, PATCH: tl.constexpr
):
    """Stores a tile of a token's gradient, [ROWS, COLUMNS]."""
    o_row = start + tl.arange(0, b_gradient.shape[0])
    o_col = tl.arange(0, b_gradient.shape[1])
    p_out = out_ptr + i_token.to(tl.int64) * (3 * TUBELET * PATCH * PATCH)
    p_out += (o_row * (3 * PATCH))[:, None] + o_col[None, :]
    m_out = (o_row < TUBELET * PATCH)[:, None] & (o_col < 3 * PATCH)[None, :]
    tl.store(p_out, b_gradient.to(out_ptr.dtype.element_ty), mask=m_out)


@triton.jit
def pixel_mse_kernel(
    prediction_ptr,  # [B, K, 3 * TUBELET * PATCH²]; strides of clip and token given
    frames_ptr,  # [B, T, H, W, 3] uint8; strides of clip, frame and row given, pixels dense
    index_ptr,  # [B, K] int32
    weight_ptr,  # [B, K] fp32, or None
    loss_ptr,  # [B, K] fp32, weighted; or None
    token_weight_ptr,  # [B, K] fp32, after the flat cubes; None with loss_ptr
    gradient_ptr,  # [B, K, 3 * TUBELET * PATCH²], contiguous, of scale * loss; or None
    grad_ptr,  # [], or None
    scale,  # fp32; None with grad_ptr, which is in its place
    per_clip,  # K
    rows,  # H / PATCH
    columns,  # W / PATCH
    prediction_clip_stride,
    prediction_token_stride,
    clip_stride,
    frame_stride,
    row_stride,
    TUBELET: tl.constexpr,
    PATCH: tl.constexpr,
    NORMALIZE: tl.constexpr,
    IGNORE_FLAT: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    VECTOR: tl.constexpr,
    ALIGN: tl.constexpr,  # of the prediction's strides
):
    PIXELS: tl.constexpr = TUBELET * PATCH * PATCH
    i_token = tl.program_id(0)
    p_prediction, p_cube, weight, n_read, b_shift, b_scale, b_bytes, b_prediction = (
        token_and_statistics(
            i_token,
            prediction_ptr,
            frames_ptr,
            index_ptr,
            weight_ptr,
            per_clip,
            rows,
            columns,
            prediction_clip_stride,
            prediction_token_stride,
            clip_stride,
            frame_stride,
            row_stride,
            TUBELET,
            PATCH,
            NORMALIZE,
            IGNORE_FLAT,
            ROWS,
            COLUMNS,
            VECTOR,
            ALIGN,
        )
    )
    if grad_ptr is not None:
        scale = tl.load(grad_ptr).to(tl.float32)
    # A token that isn't read has differences of 0, which an infinite factor would make NaN.
    factor = tl.where(n_read > 0, scale * weight * (2.0 / (3 * PIXELS)), 0.0)
    square_sum = 0.0
    for start in range(0, TUBELET * PATCH, ROWS):
        b_difference = difference(
            b_bytes,
            b_prediction,
            p_cube,
            p_prediction,
            start,
            n_read,
            b_shift,
            b_scale,
            frame_stride,
            row_stride,
            TUBELET,
            PATCH,
            NORMALIZE,
            ROWS,
            COLUMNS,
            VECTOR,
        )
        square_sum += tl.sum(b_difference * b_difference)
        if gradient_ptr is not None:
            _store_gradient(gradient_ptr, i_token, start, factor * b_difference, TUBELET, PATCH)
    if loss_ptr is not None:
        loss = weight * (square_sum / (3 * PIXELS))
        tl.store(loss_ptr + i_token, tl.where(n_read > 0, loss, 0.0))
        tl.store(token_weight_ptr + i_token, weight)


@triton.jit
def pixel_mse_sum_kernel(
    loss_ptr,  # [COUNT] fp32
    weight_ptr,  # [COUNT] fp32
    loss_sum_ptr,  # [COUNT / RUN] fp32, sums of runs
    weight_sum_ptr,  # [COUNT / RUN] fp32
    count,
    RUN: tl.constexpr,
    BLOCK: tl.constexpr,
):
    i_run = tl.program_id(0)
    b_loss = tl.zeros((BLOCK,), tl.float32)
    b_weight = tl.zeros((BLOCK,), tl.float32)
    for start in range(i_run * RUN, tl.minimum(i_run * RUN + RUN, count), BLOCK):
        o_token = start + tl.arange(0, BLOCK)  # [BLOCK]
        b_loss += tl.load(loss_ptr + o_token, mask=o_token < count, other=0.0)
        b_weight += tl.load(weight_ptr + o_token, mask=o_token < count, other=0.0)
    tl.store(loss_sum_ptr + i_run, tl.sum(b_loss, axis=0))
    tl.store(weight_sum_ptr + i_run, tl.sum(b_weight, axis=0))


def _inputs(args: Arguments) -> tuple[tuple[Tensor | None, ...], tuple[int, ...]]:
    """The tensors as the kernels read them, and the sizes and strides they take."""
    prediction, frames = args.prediction, dense_pixels(args.frames)
    if prediction.stride(2) != 1:
        prediction = prediction.contiguous()
    _, _, h, w, _ = frames.shape
    tensors = (prediction, frames, *contiguous(args.index, args.weight))
    sizes = (
        args.index.shape[1],
        h // args.patch_size,
        w // args.patch_size,
        *prediction.stride()[:2],
        *frames.stride()[:3],
    )
    return tensors, sizes


def _align(prediction: Tensor | None) -> int:
    """What the strides of clips and tokens are multiples of."""
    assert prediction is not None
    return alignment(*prediction.stride()[:2])


def _constants(args: Arguments) -> dict[str, Any]:
    """What a kernel is told of its cubes and tiles."""
    columns = power_of_2(3 * args.patch_size)
    rows = power_of_2(args.tubelet_size * args.patch_size)
    return {
        "TUBELET": args.tubelet_size,
        "PATCH": args.patch_size,
        "NORMALIZE": args.normalize,
        "ROWS": min(rows, max(1, LAUNCH.values // columns)),
        "COLUMNS": columns,
        "VECTOR": min(16 // args.prediction.element_size(), alignment(3 * args.patch_size)),
        "num_warps": LAUNCH.num_warps,
        "num_stages": LAUNCH.num_stages,
    }


def pixel_mse(args: Arguments) -> tuple[Tensor, Tensor]:
    """Sum of weight times mean squared error over tokens, and the sum of weights: fp32 scalars.

    Clips and tokens of `prediction` and clips, frames and rows of `frames` may lie anywhere; what
    is not dense inside of these is copied first, and so are `index` and `weight`.
    """
    return _sums(args, None, 1.0)


def pixel_mse_with_gradient(args: Arguments) -> tuple[Tensor, Tensor, Tensor]:
    """:func:`pixel_mse` and the gradient of `scale` times the loss, contiguous, in one pass."""
    of = args.prediction
    gradient = torch.empty(of.shape, dtype=of.dtype, device=of.device)
    return (*_sums(args, gradient, args.scale), gradient)


def _sums(args: Arguments, gradient: Tensor | None, scale: float) -> tuple[Tensor, Tensor]:
    tokens, device = args.index.numel(), args.prediction.device
    losses = torch.empty((tokens,), dtype=torch.float32, device=device)
    weights = torch.empty((tokens,), dtype=torch.float32, device=device)
    tensors, sizes = _inputs(args)
    with torch.cuda.device_of(losses):
        if tokens:
            pixel_mse_kernel[(tokens,)](
                *tensors,
                losses,
                weights,
                gradient,
                None,
                scale,
                *sizes,
                IGNORE_FLAT=args.ignore_flat,
                ALIGN=_align(tensors[0]),
                **_constants(args),
            )
        while True:  # until one run holds all
            runs = max(1, cdiv(losses.numel(), LAUNCH.run))
            shape = (runs,) if runs > 1 else ()
            loss_sum = torch.empty(shape, dtype=torch.float32, device=device)
            weight_sum = torch.empty(shape, dtype=torch.float32, device=device)
            pixel_mse_sum_kernel[(runs,)](
                losses,
                weights,
                loss_sum,
                weight_sum,
                losses.numel(),
                RUN=LAUNCH.run,
                BLOCK=LAUNCH.sum_block,
                num_warps=LAUNCH.sum_warps,
                num_stages=LAUNCH.num_stages,
            )
            if runs == 1:
                break
            losses, weights = loss_sum, weight_sum
    return loss_sum, weight_sum


def pixel_mse_backward(args: Arguments) -> Tensor:
    """The prediction's gradient, contiguous, in its dtype; `grad` is read on the device."""
    of = args.prediction
    out = torch.empty(of.shape, dtype=of.dtype, device=of.device)
    if out.numel() == 0:
        return out
    tensors, sizes = _inputs(args)
    with torch.cuda.device_of(out):
        pixel_mse_kernel[(args.index.numel(),)](
            *tensors,
            None,
            None,
            out,
            args.grad,
            None,
            *sizes,
            IGNORE_FLAT=args.ignore_flat,
            ALIGN=_align(tensors[0]),
            **_constants(args),
        )
    return out
