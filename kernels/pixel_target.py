"""The target of a token's pixels, from uint8 frames: what the pixel loss's kernels share.

A row of a cube is 3 * PATCH adjacent bytes, colour fastest, and so is a row of the prediction
(p0, p1, p2, c): a tile is some rows of both, [ROWS, COLUMNS], padded to powers of two. So a column
has one colour, and statistics and targets are those of columns. A tile of one warp needs no
barrier; where one tile holds the cube, its bytes are read once and kept.

Statistics are sums of integers, hence exact, and a target is one rounding away from them: with the
sum S of a channel's n pixels, (x - S / n) / std = (n x - S) / (n std), whose numerator is an exact
integer even where a float mean would cancel.
"""

from __future__ import annotations

import triton
import triton.language as tl

from videomae_fast.kernels.cubes import cube_pointer


@triton.jit
def _load_bytes(
    p_cube,  # first byte of the cube
    start,  # first row of the tile
    n_read,  # how many of the cube's rows to read: all, or none
    frame_stride,
    row_stride,
    PATCH: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    VECTOR: tl.constexpr,  # values that a lane takes at once, of bytes and of the prediction
):
    """uint8 [ROWS, COLUMNS], 0 where nothing is read."""
    o_row = start + tl.arange(0, ROWS)
    o_col = tl.arange(0, COLUMNS)
    o_row_byte = o_row // PATCH * frame_stride + o_row % PATCH * row_stride
    o_byte = tl.max_contiguous(o_row_byte[:, None] + o_col[None, :], [1, VECTOR])
    m_byte = (o_row < n_read)[:, None] & (o_col < 3 * PATCH)[None, :]
    return tl.load(p_cube + o_byte, mask=m_byte, other=0)


@triton.jit
def _load_prediction(
    p_prediction,  # first value of the token's prediction
    start,
    n_read,
    PATCH: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """[ROWS, COLUMNS] in the dtype of memory, 0 where nothing is read."""
    o_row = start + tl.arange(0, ROWS)
    o_col = tl.arange(0, COLUMNS)
    m_value = (o_row < n_read)[:, None] & (o_col < 3 * PATCH)[None, :]
    o_value = (o_row * (3 * PATCH))[:, None] + o_col[None, :]
    return tl.load(p_prediction + o_value, mask=m_value, other=0.0)


@triton.jit
def _scale(total, squares, PIXELS: tl.constexpr):
    """1 / (n (std + 1e-6)) in grey levels, and whether the deviation is at most one grey level."""
    # n (n - 1) variance, an exact integer: the same decision in every backend
    scatter = PIXELS * squares.to(tl.int64) - total.to(tl.int64) * total.to(tl.int64)
    # Rounded as elsewhere, once per token: the GPU's plain division is off by up to 2 units.
    std = tl.sqrt_rn(tl.div_rn(scatter.to(tl.float32), PIXELS * 1.0 * (PIXELS - 1)))
    return tl.div_rn(1.0, PIXELS * (std + 255.0 * 1e-6)), scatter <= PIXELS * (PIXELS - 1)


@triton.jit
def _of_columns(value_0, value_1, value_2, COLUMNS: tl.constexpr):
    """[COLUMNS]: the value of each column's colour."""
    b_colour = tl.arange(0, COLUMNS) % 3
    return tl.where(b_colour == 0, value_0, tl.where(b_colour == 1, value_1, value_2))


@triton.jit
def _statistics(
    b_sum,  # int32 [ROWS, COLUMNS], of the cube's tiles
    b_square,  # int32 [ROWS, COLUMNS]
    PATCH: tl.constexpr,
    PIXELS: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    VECTOR: tl.constexpr,
):
    """Sum (int32) and scale of each column's colour [1, COLUMNS]; whether all colours are flat."""
    # First what a lane has of each of its columns, then what is of one colour, last other lanes'.
    LANES: tl.constexpr = min(ROWS, max(1, 32 * VECTOR // COLUMNS))  # down a column
    b_sum = tl.sum(tl.reshape(b_sum, [ROWS // LANES, LANES, COLUMNS]), 0)
    b_square = tl.sum(tl.reshape(b_square, [ROWS // LANES, LANES, COLUMNS]), 0)
    b_colour = (tl.arange(0, COLUMNS) % 3)[None, :]
    sum_0 = tl.sum(tl.where(b_colour == 0, b_sum, 0))
    sum_1 = tl.sum(tl.where(b_colour == 1, b_sum, 0))
    sum_2 = tl.sum(b_sum) - sum_0 - sum_1
    square_0 = tl.sum(tl.where(b_colour == 0, b_square, 0))
    square_1 = tl.sum(tl.where(b_colour == 1, b_square, 0))
    square_2 = tl.sum(b_square) - square_0 - square_1
    # Side by side in lanes, for roots and divisions are long; the fourth is the third again.
    i_colour = tl.arange(0, 4)
    b_total = tl.where(i_colour == 0, sum_0, tl.where(i_colour == 1, sum_1, sum_2))
    b_squares = tl.where(i_colour == 0, square_0, tl.where(i_colour == 1, square_1, square_2))
    b_scale, b_flat = _scale(b_total, b_squares, PIXELS)
    scale_0 = tl.sum(tl.where(i_colour == 0, b_scale, 0.0), 0)
    scale_1 = tl.sum(tl.where(i_colour == 1, b_scale, 0.0), 0)
    scale_2 = tl.sum(tl.where(i_colour == 2, b_scale, 0.0), 0)
    b_shift = _of_columns(sum_0, sum_1, sum_2, COLUMNS)
    b_scale = _of_columns(scale_0, scale_1, scale_2, COLUMNS)
    b_scale = tl.where(tl.arange(0, COLUMNS) < 3 * PATCH, b_scale, 0.0)
    return b_shift[None, :], b_scale[None, :], tl.min(b_flat.to(tl.int32), 0) != 0


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
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    VECTOR: tl.constexpr,
    ALIGN: tl.constexpr,  # of the prediction's strides
):
    """A token's pointers, weight, number of rows to read (all or none), statistics and first tile.

    The first tile is its bytes and prediction: all of the token where that is one tile. Both are
    asked for before anything is computed.
    """
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
    n_read = TUBELET * PATCH
    if weight_ptr is not None:
        weight = tl.load(weight_ptr + i_token)
        # A token of weight 0 counts for nothing, whatever its prediction: it isn't even read.
        n_read = tl.where(weight != 0.0, TUBELET * PATCH, 0)
    b_bytes = _load_bytes(p_cube, 0, n_read, frame_stride, row_stride, PATCH, ROWS, COLUMNS, VECTOR)
    b_prediction = _load_prediction(p_prediction, 0, n_read, PATCH, ROWS, COLUMNS)
    b_shift = tl.zeros([1, COLUMNS], tl.int32)
    b_scale = tl.full([1, COLUMNS], 1.0 / 255.0, tl.float32)
    if NORMALIZE or IGNORE_FLAT:
        b_x = b_bytes.to(tl.int32)
        b_sum = b_x
        b_square = b_x * b_x
        for start in range(ROWS, TUBELET * PATCH, ROWS):
            b_x = _load_bytes(
                p_cube, start, n_read, frame_stride, row_stride, PATCH, ROWS, COLUMNS, VECTOR
            ).to(tl.int32)
            b_sum += b_x
            b_square += b_x * b_x
        b_total, b_normal, flat = _statistics(b_sum, b_square, PATCH, PIXELS, ROWS, COLUMNS, VECTOR)
        if NORMALIZE:
            b_shift = b_total
            b_scale = b_normal
        if IGNORE_FLAT:
            weight = tl.where(flat, 0.0, weight)
            n_read = tl.where(flat, 0, n_read)
    return p_prediction, p_cube, weight, n_read, b_shift, b_scale, b_bytes, b_prediction


@triton.jit
def difference(
    b_bytes,  # the first tile's
    b_prediction,
    p_cube,  # first byte of the cube
    p_prediction,  # first value of the token's prediction
    start,  # first row of the tile
    n_read,
    b_shift,
    b_scale,
    frame_stride,
    row_stride,
    TUBELET: tl.constexpr,
    PATCH: tl.constexpr,
    NORMALIZE: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    VECTOR: tl.constexpr,
):
    """Prediction minus target, fp32 [ROWS, COLUMNS], 0 where nothing is read."""
    if ROWS < TUBELET * PATCH:  # several tiles: bytes are read again, from L1
        b_bytes = _load_bytes(
            p_cube, start, n_read, frame_stride, row_stride, PATCH, ROWS, COLUMNS, VECTOR
        )
        b_prediction = _load_prediction(p_prediction, start, n_read, PATCH, ROWS, COLUMNS)
    b_target = b_bytes.to(tl.int32)
    if NORMALIZE:
        b_target = TUBELET * PATCH * PATCH * b_target - b_shift
    b_difference = b_prediction.to(tl.float32) - b_target.to(tl.float32) * b_scale
    # Columns that are not there have scale 0. Rows that are not, and tokens that are not to be
    # counted, may have a target all the same.
    m_row = start + tl.arange(0, ROWS) < n_read
    return tl.where(m_row[:, None], b_difference, 0.0)
