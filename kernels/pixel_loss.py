"""Normalised-pixel MSE straight from uint8 frames: forward, and the prediction's gradient.

A row of a cube is 3 * PATCH adjacent bytes, colour fastest, and so is a row of the prediction
(p0, p1, p2, c): values are walked in that one order, which is contiguous in the prediction and in
runs of 3 * PATCH bytes in the frames. One program takes one token.

Statistics are sums of integers, hence exact, and a target is one rounding away from them: with the
sum S of a channel's n pixels, (x - S / n) / std = (n x - S) / (n std), whose numerator is an exact
integer even where a float mean would cancel. Backward finds the very same target again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from videomae_fast.kernels.cubes import cube_pointer, dense_pixels


@dataclass(frozen=True)
class Launch:
    """Launch choices; modelled, not yet measured on a GPU.

    Attributes:
        values: most values of a tile. A 2×16×16 cube's 1536 are three tiles of 512, and its bytes
            are read twice, the second time from L1. One tile of 2048 would take twice the
            registers a lane, and a quarter of its lanes would have nothing to do.
        num_warps: 2: 8 values a lane, and sums that cross one border between warps. Some 60
            registers leave room for 16 programs on a multiprocessor, with 70 kB of loads.
        run: token losses that one program adds up, so that all of a batch's are two short steps.
        sum_block, sum_warps: of a tile of that program.
    """

    values: int = 512
    num_warps: int = 2
    num_stages: int = 1
    run: int = 8192
    sum_block: int = 2048
    sum_warps: int = 8


LAUNCH = Launch()


@triton.jit
def _byte_offsets(o_value, frame_stride, row_stride, PATCH: tl.constexpr):
    """Where values of a cube, in the order (p0, p1, p2, c), lie in the frames."""
    o_row = o_value // (3 * PATCH)
    return o_row // PATCH * frame_stride + o_row % PATCH * row_stride + o_value % (3 * PATCH)


@triton.jit
def _scale(total, squares, PIXELS: tl.constexpr):
    """1 / (n (std + 1e-6)) in grey levels, and whether the deviation is at most one grey level."""
    # n (n - 1) variance, an exact integer: the same decision in every backend
    scatter = PIXELS * squares.to(tl.int64) - total.to(tl.int64) * total.to(tl.int64)
    std = tl.sqrt_rn(scatter.to(tl.float32) / (PIXELS * 1.0 * (PIXELS - 1)))
    return 1.0 / (PIXELS * (std + 255.0 * 1e-6)), scatter <= PIXELS * (PIXELS - 1)


@triton.jit
def _statistics(
    p_cube,  # first byte of the cube
    n_read,  # how many of its values to read: all, or none
    frame_stride,
    row_stride,
    PATCH: tl.constexpr,
    PIXELS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Sum and scale of each colour channel, and whether all channels are flat."""
    sum_0, sum_1, sum_2, square_0, square_1, square_2 = 0, 0, 0, 0, 0, 0
    for start in range(0, 3 * PIXELS, BLOCK):
        o_value = start + tl.arange(0, BLOCK)  # [BLOCK]
        m_value = o_value < n_read
        p_value = p_cube + _byte_offsets(o_value, frame_stride, row_stride, PATCH)
        b_x = tl.load(p_value, mask=m_value, other=0).to(tl.int32)
        b_0 = tl.where(o_value % 3 == 0, b_x, 0)
        b_1 = tl.where(o_value % 3 == 1, b_x, 0)
        b_2 = tl.where(o_value % 3 == 2, b_x, 0)
        sum_0 += tl.sum(b_0, axis=0)
        sum_1 += tl.sum(b_1, axis=0)
        sum_2 += tl.sum(b_2, axis=0)
        square_0 += tl.sum(b_0 * b_0, axis=0)
        square_1 += tl.sum(b_1 * b_1, axis=0)
        square_2 += tl.sum(b_2 * b_2, axis=0)
    scale_0, flat_0 = _scale(sum_0, square_0, PIXELS)
    scale_1, flat_1 = _scale(sum_1, square_1, PIXELS)
    scale_2, flat_2 = _scale(sum_2, square_2, PIXELS)
    return sum_0, sum_1, sum_2, scale_0, scale_1, scale_2, flat_0 & flat_1 & flat_2


@triton.jit
def _difference(
    p_cube,  # first byte of the cube
    p_prediction,  # first value of the token's prediction
    start,
    n_read,
    frame_stride,
    row_stride,
    sum_0,
    sum_1,
    sum_2,
    scale_0,
    scale_1,
    scale_2,
    PATCH: tl.constexpr,
    PIXELS: tl.constexpr,
    NORMALIZE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Prediction minus target, fp32 [BLOCK], 0 where nothing is read."""
    o_value = start + tl.arange(0, BLOCK)  # [BLOCK]
    m_value = o_value < n_read
    p_value = p_cube + _byte_offsets(o_value, frame_stride, row_stride, PATCH)
    b_x = tl.load(p_value, mask=m_value, other=0).to(tl.int32)
    b_prediction = tl.load(p_prediction + o_value, mask=m_value, other=0.0).to(tl.float32)
    if NORMALIZE:
        channel = o_value % 3
        b_sum = tl.where(channel == 0, sum_0, tl.where(channel == 1, sum_1, sum_2))
        b_scale = tl.where(channel == 0, scale_0, tl.where(channel == 1, scale_1, scale_2))
        b_target = (PIXELS * b_x - b_sum).to(tl.float32) * b_scale
    else:
        b_target = b_x.to(tl.float32) * (1.0 / 255.0)
    return tl.where(m_value, b_prediction - b_target, 0.0)


@triton.jit
def pixel_mse_kernel(
    prediction_ptr,  # [B, K, 3 * TUBELET * PATCH²]; strides of clip and token given
    frames_ptr,  # [B, T, H, W, 3] uint8; strides of clip, frame and row given, pixels dense
    index_ptr,  # [B, K] int32
    weight_ptr,  # [B, K] fp32, or None
    loss_ptr,  # [B, K] fp32, weighted
    token_weight_ptr,  # [B, K] fp32, after the flat cubes
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
    BLOCK: tl.constexpr,
):
    PIXELS: tl.constexpr = TUBELET * PATCH * PATCH
    i_token = tl.program_id(0)
    i_clip = i_token // per_clip
    p_prediction = (
        prediction_ptr
        + i_clip.to(tl.int64) * prediction_clip_stride
        + (i_token % per_clip).to(tl.int64) * prediction_token_stride
    )
    p_cube = cube_pointer(
        frames_ptr,
        i_clip,
        tl.load(index_ptr + i_token),
        rows,
        columns,
        clip_stride,
        frame_stride,
        row_stride,
        TUBELET,
        PATCH,
    )
    weight = 1.0
    n_read = 3 * PIXELS
    if weight_ptr is not None:
        weight = tl.load(weight_ptr + i_token)
        # A token of weight 0 counts for nothing, whatever its prediction: it isn't even read.
        n_read = tl.where(weight != 0.0, 3 * PIXELS, 0)
    sum_0, sum_1, sum_2, scale_0, scale_1, scale_2 = 0, 0, 0, 0.0, 0.0, 0.0
    if NORMALIZE or IGNORE_FLAT:
        sum_0, sum_1, sum_2, scale_0, scale_1, scale_2, flat = _statistics(
            p_cube, n_read, frame_stride, row_stride, PATCH, PIXELS, BLOCK
        )
        if IGNORE_FLAT:
            weight = tl.where(flat, 0.0, weight)
            n_read = tl.where(flat, 0, n_read)
    b_square = tl.zeros((BLOCK,), tl.float32)
    for start in range(0, 3 * PIXELS, BLOCK):
        b_difference = _difference(
            p_cube,
            p_prediction,
            start,
            n_read,
            frame_stride,
            row_stride,
            sum_0,
            sum_1,
            sum_2,
            scale_0,
            scale_1,
            scale_2,
            PATCH,
            PIXELS,
            NORMALIZE,
            BLOCK,
        )
        b_square += b_difference * b_difference
    loss = weight * (tl.sum(b_square, axis=0) / (3 * PIXELS))
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


@triton.jit
def pixel_mse_backward_kernel(
    grad_ptr,  # [] of loss_sum
    prediction_ptr,  # [B, K, 3 * TUBELET * PATCH²]; strides of clip and token given
    frames_ptr,  # [B, T, H, W, 3] uint8; strides of clip, frame and row given, pixels dense
    index_ptr,  # [B, K] int32
    weight_ptr,  # [B, K] fp32, or None
    out_ptr,  # [B, K, 3 * TUBELET * PATCH²], contiguous
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
    BLOCK: tl.constexpr,
):
    PIXELS: tl.constexpr = TUBELET * PATCH * PATCH
    i_token = tl.program_id(0)
    i_clip = i_token // per_clip
    p_prediction = (
        prediction_ptr
        + i_clip.to(tl.int64) * prediction_clip_stride
        + (i_token % per_clip).to(tl.int64) * prediction_token_stride
    )
    p_cube = cube_pointer(
        frames_ptr,
        i_clip,
        tl.load(index_ptr + i_token),
        rows,
        columns,
        clip_stride,
        frame_stride,
        row_stride,
        TUBELET,
        PATCH,
    )
    weight = 1.0
    n_read = 3 * PIXELS
    if weight_ptr is not None:
        weight = tl.load(weight_ptr + i_token)
        n_read = tl.where(weight != 0.0, 3 * PIXELS, 0)
    sum_0, sum_1, sum_2, scale_0, scale_1, scale_2 = 0, 0, 0, 0.0, 0.0, 0.0
    if NORMALIZE or IGNORE_FLAT:
        sum_0, sum_1, sum_2, scale_0, scale_1, scale_2, flat = _statistics(
            p_cube, n_read, frame_stride, row_stride, PATCH, PIXELS, BLOCK
        )
        if IGNORE_FLAT:
            weight = tl.where(flat, 0.0, weight)
            n_read = tl.where(flat, 0, n_read)
    factor = tl.load(grad_ptr).to(tl.float32) * weight * (2.0 / (3 * PIXELS))
    for start in range(0, 3 * PIXELS, BLOCK):
        b_difference = _difference(
            p_cube,
            p_prediction,
            start,
            n_read,
            frame_stride,
            row_stride,
            sum_0,
            sum_1,
            sum_2,
            scale_0,
            scale_1,
            scale_2,
            PATCH,
            PIXELS,
            NORMALIZE,
            BLOCK,
        )
        o_value = start + tl.arange(0, BLOCK)  # [BLOCK]
        p_out = out_ptr + i_token.to(tl.int64) * (3 * PIXELS) + o_value
        b_out = tl.where(o_value < n_read, factor * b_difference, 0.0).to(out_ptr.dtype.element_ty)
        tl.store(p_out, b_out, mask=o_value < 3 * PIXELS)


def _inputs(
    prediction: Tensor,
    frames: Tensor,
    index: Tensor,
    weight: Tensor | None,
    patch_size: int,
) -> tuple[tuple[Tensor | None, ...], tuple[int, ...]]:
    """The tensors as the kernels read them, and the sizes and strides they take."""
    if prediction.stride(2) != 1:
        prediction = prediction.contiguous()
    frames = dense_pixels(frames)
    _, _, h, w, _ = frames.shape
    tensors = (
        prediction,
        frames,
        index.contiguous(),
        None if weight is None else weight.contiguous(),
    )
    sizes = (
        index.shape[1],
        h // patch_size,
        w // patch_size,
        *prediction.stride()[:2],
        *frames.stride()[:3],
    )
    return tensors, sizes


def _block(tubelet_size: int, patch_size: int) -> int:
    return min(int(triton.next_power_of_2(3 * tubelet_size * patch_size**2)), LAUNCH.values)


def pixel_mse(
    prediction: Tensor,
    frames: Tensor,
    index: Tensor,
    weight: Tensor | None,
    tubelet_size: int,
    patch_size: int,
    normalize: bool,
    ignore_flat: bool,
) -> tuple[Tensor, Tensor]:
    """Sum of weight times mean squared error over tokens, and the sum of weights: fp32 scalars.

    Clips and tokens of `prediction` and clips, frames and rows of `frames` may lie anywhere; what
    is not dense inside of these is copied first, and so are `index` and `weight`.
    """
    tokens = index.numel()
    losses = torch.empty((tokens,), dtype=torch.float32, device=prediction.device)
    weights = torch.empty((tokens,), dtype=torch.float32, device=prediction.device)
    tensors, sizes = _inputs(prediction, frames, index, weight, patch_size)
    with torch.cuda.device_of(prediction):
        if tokens:
            pixel_mse_kernel[(tokens,)](
                *tensors,
                losses,
                weights,
                *sizes,
                TUBELET=tubelet_size,
                PATCH=patch_size,
                NORMALIZE=normalize,
                IGNORE_FLAT=ignore_flat,
                BLOCK=_block(tubelet_size, patch_size),
                num_warps=LAUNCH.num_warps,
                num_stages=LAUNCH.num_stages,
            )
        while True:  # until one run holds all
            runs = max(1, triton.cdiv(losses.numel(), LAUNCH.run))
            shape = (runs,) if runs > 1 else ()
            loss_sum = torch.empty(shape, dtype=torch.float32, device=prediction.device)
            weight_sum = torch.empty(shape, dtype=torch.float32, device=prediction.device)
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


def pixel_mse_backward(
    grad: Tensor,
    prediction: Tensor,
    frames: Tensor,
    index: Tensor,
    weight: Tensor | None,
    tubelet_size: int,
    patch_size: int,
    normalize: bool,
    ignore_flat: bool,
) -> Tensor:
    """The prediction's gradient, contiguous, in its dtype; `grad` is read on the device."""
    out = torch.empty(prediction.shape, dtype=prediction.dtype, device=prediction.device)
    if out.numel() == 0:
        return out
    tensors, sizes = _inputs(prediction, frames, index, weight, patch_size)
    with torch.cuda.device_of(prediction):
        pixel_mse_backward_kernel[(index.numel(),)](
            grad,
            *tensors,
            out,
            *sizes,
            TUBELET=tubelet_size,
            PATCH=patch_size,
            NORMALIZE=normalize,
            IGNORE_FLAT=ignore_flat,
            BLOCK=_block(tubelet_size, patch_size),
            num_warps=LAUNCH.num_warps,
            num_stages=LAUNCH.num_stages,
        )
    return out


def aot_cases() -> list[tuple[str, Any, dict[str, str], dict[str, Any], int, int]]:
    """(name, kernel, signature, constexprs, num_warps, num_stages) of the sizes in use."""
    sizes = (
        "per_clip",
        "rows",
        "columns",
        "prediction_clip_stride",
        "prediction_token_stride",
        "clip_stride",
        "frame_stride",
        "row_stride",
    )
    cases: list[tuple[str, Any, dict[str, str], dict[str, Any], int, int]] = []
    for dtype, patch, weighted, normalize, ignore_flat in (
        ("bf16", 16, False, True, False),
        ("bf16", 14, True, True, False),
        ("bf16", 16, True, True, True),
        ("bf16", 16, True, False, False),
        ("fp32", 16, False, True, False),
        ("fp32", 14, True, True, True),
    ):
        tensors = {"prediction_ptr": f"*{dtype}", "frames_ptr": "*u8", "index_ptr": "*i32"}
        constexprs: dict[str, Any] = {
            "TUBELET": 2,
            "PATCH": patch,
            "NORMALIZE": normalize,
            "IGNORE_FLAT": ignore_flat,
            "BLOCK": _block(2, patch),
        }
        if weighted:
            tensors["weight_ptr"] = "*fp32"
        else:
            constexprs["weight_ptr"] = None
        forward = {**tensors, "loss_ptr": "*fp32", "token_weight_ptr": "*fp32"}
        backward = {"grad_ptr": "*fp32", **tensors, "out_ptr": f"*{dtype}"}
        options = "_weighted" * weighted + "_raw" * (not normalize) + "_flat" * ignore_flat
        for name, kernel, signature in (
            ("pixel_mse", pixel_mse_kernel, forward),
            ("pixel_mse_backward", pixel_mse_backward_kernel, backward),
        ):
            cases.append(
                (
                    f"{name}_{dtype}_p{patch}{options}",
                    kernel,
                    {**signature, **dict.fromkeys(sizes, "i32")},
                    constexprs,
                    LAUNCH.num_warps,
                    LAUNCH.num_stages,
                )
            )
    names = ("loss_ptr", "weight_ptr", "loss_sum_ptr", "weight_sum_ptr")
    signature = {**dict.fromkeys(names, "*fp32"), "count": "i32"}
    sums = {"RUN": LAUNCH.run, "BLOCK": LAUNCH.sum_block}
    cases.append(
        (
            "pixel_mse_sum",
            pixel_mse_sum_kernel,
            signature,
            sums,
            LAUNCH.sum_warps,
            LAUNCH.num_stages,
        )
    )
    return cases
