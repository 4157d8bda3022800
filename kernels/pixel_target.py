"""The target of a token's pixels, from uint8 frames: what the pixel loss's kernels share.

A row of a cube is 3 * PATCH adjacent bytes, colour fastest, and so is a row of the prediction
(p0, p1, p2, c): values are walked in that one order, which is contiguous in the prediction and in
runs of 3 * PATCH bytes in the frames.

Statistics are sums of integers, hence exact, and a target is one rounding away from them: with the
sum S of a channel's n pixels, (x - S / n) / std = (n x - S) / (n std), whose numerator is an exact
integer even where a float mean would cancel.
"""

from __future__ import annotations

import triton
import triton.language as tl

from videomae_fast.kernels.cubes import cube_pointer


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
    # Rounded as elsewhere, once per token: the GPU's plain division is off by up to 2 units.
    std = tl.sqrt_rn(tl.div_rn(scatter.to(tl.float32), PIXELS * 1.0 * (PIXELS - 1)))
    return tl.div_rn(1.0, PIXELS * (std + 255.0 * 1e-6)), scatter <= PIXELS * (PIXELS - 1)


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
def token_and_statistics(
    i_token,
    prediction_ptr,  # [B, K, 3 * TUBELET * PATCH²]; strides of clip and token given
    frames_ptr,  # [B, T, H, W, 3] uint8; strides of clip, frame and row given, pixels dense
    index_ptr,  # [B, K] int32
    weight_ptr,  # [B, K] fp32, or None
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
    ALIGN: tl.constexpr,  # of the prediction's strides
):
    """A token's pointers, weight, number of values to read (all or none) and statistics."""
    PIXELS: tl.constexpr = TUBELET * PATCH * PATCH
    i_clip = i_token // per_clip
    o_prediction = i_clip.to(tl.int64) * prediction_clip_stride
    o_prediction += (i_token % per_clip).to(tl.int64) * prediction_token_stride
    p_prediction = prediction_ptr + tl.multiple_of(o_prediction, ALIGN)
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
    return p_prediction, p_cube, weight, n_read, sum_0, sum_1, sum_2, scale_0, scale_1, scale_2


@triton.jit
def difference(
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
