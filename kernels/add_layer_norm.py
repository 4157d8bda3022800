"""Residual add and LayerNorm, forward and backward: one pass over the rows each.

Forward may also write the normalised rows in e4m3, for fp8 matmuls (docs/kernels/fp8_linear.md).
See docs/kernels/add_layer_norm.md, and kernels/rows.py for how rows are cut.
"""

# Tuples of blocks grow in the kernels: a name changes its type.
# mypy: disable-error-code="assignment"

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from videomae_fast.arguments import Arguments, contiguous
from videomae_fast.kernels.columns import sum_columns
from videomae_fast.kernels.occupancy import assumed_registers, programs_at_once
from videomae_fast.kernels.quantize_rows import empty_quantized, store_quantized
from videomae_fast.kernels.rows import (
    Tiling,
    as_rows,
    load_rows,
    load_vector,
    row_runs,
    row_tiling,
    store_chunk,
)


@dataclass(frozen=True)
class Launch:
    """How the kernels are launched; timed on an H100 (docs/performance-log.md).

    Attributes:
        num_warps: of a forward program, more where a row needs more: a warp has its rows to
            itself, so that nothing in the loop waits for another warp.
        backward_warps: 4: each program leaves a row of partial sums per parameter, which more and
            smaller programs would make a cost.
        programs: per multiprocessor; None: as many as the compiled kernel's registers let in,
            which is one wave, at whose end no multiprocessor waits for another's second program.
        lane_values: fp32 values that a lane may hold, which keeps it within 255 registers.
        backward_stages: of backward's loop, of 16-bit types without LayerScale; from 2 on a tile
            is copied into shared memory while the `backward_stages` - 1 before it are computed.
        backward_lane_values: the same as lane_values for what backward_stages is for; fewer put
            a row into more warps, with fewer sums in each.
        keep_weight: the norm's weight stays in backward's registers, as it does with stages; else
            each row loads it twice, and after its first store waits for it.
    """

    num_warps: int = 1
    backward_warps: int = 4
    programs: int | None = None
    lane_values: int = 192
    backward_stages: int = 4
    backward_lane_values: int = 64
    keep_weight: bool = False


LAUNCH = Launch()


def forward_tiling(width: int, itemsize: int) -> Tiling:
    """Of the forward kernel, which holds x, delta and the stream."""
    return row_tiling(width, itemsize, 3, LAUNCH.num_warps, LAUNCH.lane_values)


def backward_tiling(width: int, itemsize: int, sums: int, *, scaled: bool) -> Tiling:
    """Of the backward kernel, which holds its sums and three or four inputs, as in memory.

    The counts are those with which no official width spills: see tests/kernels/aot.py.
    """
    live = sums + 2 * itemsize - 2 + 3 * scaled
    values = LAUNCH.backward_lane_values if _few(itemsize, scaled) else LAUNCH.lane_values
    return row_tiling(width, itemsize, live, LAUNCH.backward_warps, values)


def _few(itemsize: int, scaled: bool) -> bool:
    """Whether backward holds few enough bytes to load ahead or to keep the weight.

    fp32 takes twice the memory, and LayerScale's vectors would be copied with every tile.
    """
    return itemsize == 2 and not scaled


@triton.jit
def _forward(
    x_ptr,  # [n_rows, WIDTH], rows x_stride apart
    delta_ptr,  # [n_rows, WIDTH], rows delta_stride apart
    weight_ptr,  # [WIDTH]
    bias_ptr,  # [WIDTH]
    delta_bias_ptr,  # [WIDTH] or None
    scale_ptr,  # [WIDTH] or None
    factor_ptr,  # [n_rows / n_tokens] or None
    out_ptr,  # [n_rows, WIDTH]
    stream_ptr,  # [n_rows, WIDTH]
    mean_ptr,  # [n_rows], fp32
    rstd_ptr,  # [n_rows], fp32
    values_ptr,  # [n_rows, WIDTH], e4m3, or None: `out` divided by its rows' scales
    row_scale_ptr,  # [n_rows], fp32, or None
    n_rows,
    n_tokens,
    n_run,  # rows of a program
    x_stride,
    delta_stride,
    eps,
    WIDTH: tl.constexpr,
    ROWS: tl.constexpr,
    CHUNK: tl.constexpr,
    CHUNKS: tl.constexpr,
):
    i_start = tl.program_id(0) * n_run
    i_end = tl.minimum(i_start + n_run, n_rows)
    for i_tile in range(i_start, i_end, ROWS):
        i_row = i_tile + tl.arange(0, ROWS)
        m_row = i_row < i_end
        o_row = i_row.to(tl.int64)
        b_x = load_rows(x_ptr, o_row * x_stride, m_row, WIDTH, CHUNK, CHUNKS)
        b_delta = load_rows(delta_ptr, o_row * delta_stride, m_row, WIDTH, CHUNK, CHUNKS)
        b_stream = ()
        b_sum = tl.zeros([ROWS, CHUNK], tl.float32)
        for c in tl.static_range(CHUNKS):
            b_branch = b_delta[c].to(tl.float32)
            if delta_bias_ptr is not None:
                b_branch += load_vector(delta_bias_ptr, c, WIDTH, ROWS, CHUNK)
            if scale_ptr is not None:
                b_branch *= load_vector(scale_ptr, c, WIDTH, ROWS, CHUNK)
            if factor_ptr is not None:
                b_factor = tl.load(factor_ptr + i_row // n_tokens, mask=m_row, other=0.0)
                b_branch *= b_factor.to(tl.float32)[:, None]
            # The norm is that of the stream as stored: backward sees no more.
            b_chunk = b_x[c].to(tl.float32) + b_branch
            b_chunk = b_chunk.to(stream_ptr.dtype.element_ty).to(tl.float32)
            b_stream = b_stream + (b_chunk,)  # noqa: RUF005
            store_chunk(stream_ptr, o_row * WIDTH, m_row, b_chunk, c, WIDTH, CHUNK)
            b_sum += b_chunk
        b_mean = tl.sum(b_sum, 1) * (1.0 / WIDTH)
        b_square = tl.zeros([ROWS, CHUNK], tl.float32)
        for c in tl.static_range(CHUNKS):
            b_centred = b_stream[c] - b_mean[:, None]
            if (c + 1) * CHUNK > WIDTH:
                b_centred = tl.where(
                    (c * CHUNK + tl.arange(0, CHUNK) < WIDTH)[None, :], b_centred, 0.0
                )
            b_square += b_centred * b_centred
        b_rstd = 1.0 / tl.sqrt(tl.sum(b_square, 1) * (1.0 / WIDTH) + eps)
        b_outs = ()
        for c in tl.static_range(CHUNKS):
            b_normal = (b_stream[c] - b_mean[:, None]) * b_rstd[:, None]
            b_out = b_normal * load_vector(weight_ptr, c, WIDTH, ROWS, CHUNK)
            b_out += load_vector(bias_ptr, c, WIDTH, ROWS, CHUNK)
            store_chunk(out_ptr, o_row * WIDTH, m_row, b_out, c, WIDTH, CHUNK)
            if values_ptr is not None:
                b_outs = b_outs + (b_out.to(out_ptr.dtype.element_ty),)  # noqa: RUF005
        if values_ptr is not None:
            store_quantized(
                values_ptr, row_scale_ptr, i_row, m_row, b_outs, WIDTH, ROWS, CHUNK, CHUNKS
            )
        tl.store(mean_ptr + i_row, b_mean, mask=m_row)
        tl.store(rstd_ptr + i_row, b_rstd, mask=m_row)


@triton.jit
def _zeros(ROWS: tl.constexpr, CHUNK: tl.constexpr, CHUNKS: tl.constexpr):
    b_zeros = ()
    for _ in tl.static_range(CHUNKS):
        b_zeros = b_zeros + (tl.zeros([ROWS, CHUNK], tl.float32),)  # noqa: RUF005
    return b_zeros


@triton.jit
def _add_pairs(a_0, a_1, b_0, b_1):
    return a_0 + b_0, a_1 + b_1


@triton.jit
def _store_sum(
    p, b_sum, c: tl.constexpr, WIDTH: tl.constexpr, ROWS: tl.constexpr, CHUNK: tl.constexpr
):
    """Chunk `c` [CHUNK] of a row, by the lanes that have it: those of a tile's first row.

    A store [CHUNK] would be laid out over the program's lanes in its own way, as in _load_vector.
    """
    o_row = tl.arange(0, ROWS)[:, None]
    o_block = tl.broadcast_to((c * CHUNK + tl.arange(0, CHUNK))[None, :], [ROWS, CHUNK])
    b_block = tl.broadcast_to(b_sum[None, :], [ROWS, CHUNK])
    tl.store(p + o_block, b_block, mask=(o_row == 0) & (o_block < WIDTH))


@triton.jit
def _store_pairs(
    p,
    n_sum,
    b_one,
    b_other,
    WIDTH: tl.constexpr,
    ROWS: tl.constexpr,
    CHUNK: tl.constexpr,
    CHUNKS: tl.constexpr,
):
    """The sums over a tile's rows, into two rows [WIDTH] that are `n_sum` apart.

    Two at a time, as the warps wait for one another for each reduction, not for each sum.
    """
    for c in tl.static_range(CHUNKS):
        b_first, b_second = tl.reduce((b_one[c], b_other[c]), 0, _add_pairs)
        _store_sum(p, b_first, c, WIDTH, ROWS, CHUNK)
        _store_sum(p + n_sum, b_second, c, WIDTH, ROWS, CHUNK)


@triton.jit
def _store_sums(
    p, b_rows, WIDTH: tl.constexpr, ROWS: tl.constexpr, CHUNK: tl.constexpr, CHUNKS: tl.constexpr
):
    """The sums over a tile's rows, into a row [WIDTH]."""
    for c in tl.static_range(CHUNKS):
        _store_sum(p, tl.sum(b_rows[c], 0), c, WIDTH, ROWS, CHUNK)


@triton.jit
def _backward(
    grad_out_ptr,  # [n_rows, WIDTH], rows grad_out_stride apart
    grad_stream_ptr,  # [n_rows, WIDTH], rows grad_stream_stride apart, or None
    stream_ptr,  # [n_rows, WIDTH], rows stream_stride apart
    mean_ptr,  # [n_rows], fp32
    rstd_ptr,  # [n_rows], fp32
    weight_ptr,  # [WIDTH]
    delta_ptr,  # [n_rows, WIDTH], rows delta_stride apart; read where there is a scale
    delta_bias_ptr,  # [WIDTH] or None; read where there is a scale
    scale_ptr,  # [WIDTH] or None
    factor_ptr,  # [n_rows / n_tokens] or None
    grad_x_ptr,  # [n_rows, WIDTH]
    grad_delta_ptr,  # [n_rows, WIDTH], or None where it equals grad_x
    partial_ptr,  # [n_sums, n_programs, WIDTH], fp32: weight, bias, delta_bias, scale
    n_rows,
    n_tokens,
    n_run,  # rows of a program
    grad_out_stride,
    grad_stream_stride,
    stream_stride,
    delta_stride,
    DENSE: tl.constexpr,  # whether all rows are WIDTH apart: one offset then serves all tensors
    HAS_DELTA_BIAS: tl.constexpr,
    WIDTH: tl.constexpr,
    ROWS: tl.constexpr,
    CHUNK: tl.constexpr,
    CHUNKS: tl.constexpr,
    STAGES: tl.constexpr,  # 1, or in how many tiles' time what is loaded is computed
    KEEP_WEIGHT: tl.constexpr,  # with stages: what the loop loads is copied with every tile
):
    if DENSE:
        grad_out_stride = WIDTH
        grad_stream_stride = WIDTH
        stream_stride = WIDTH
        delta_stride = WIDTH
    b_grad_weight = _zeros(ROWS, CHUNK, CHUNKS)
    b_grad_bias = _zeros(ROWS, CHUNK, CHUNKS)
    if HAS_DELTA_BIAS:
        b_grad_delta_bias = _zeros(ROWS, CHUNK, CHUNKS)
    if scale_ptr is not None:
        b_grad_scale = _zeros(ROWS, CHUNK, CHUNKS)
    b_weight = ()
    if KEEP_WEIGHT:
        for c in tl.static_range(CHUNKS):
            b_weight = b_weight + (load_vector(weight_ptr, c, WIDTH, ROWS, CHUNK),)  # noqa: RUF005
    i_start = tl.program_id(0) * n_run
    i_end = tl.minimum(i_start + n_run, n_rows)
    for i_tile in tl.range(i_start, i_end, ROWS, num_stages=STAGES):
        i_row = i_tile + tl.arange(0, ROWS)
        m_row = i_row < i_end
        o_row = i_row.to(tl.int64)
        b_grad = load_rows(grad_out_ptr, o_row * grad_out_stride, m_row, WIDTH, CHUNK, CHUNKS)
        b_stream = load_rows(stream_ptr, o_row * stream_stride, m_row, WIDTH, CHUNK, CHUNKS)
        if grad_stream_ptr is not None:
            b_residual = load_rows(
                grad_stream_ptr, o_row * grad_stream_stride, m_row, WIDTH, CHUNK, CHUNKS
            )
        if scale_ptr is not None:
            b_delta = load_rows(delta_ptr, o_row * delta_stride, m_row, WIDTH, CHUNK, CHUNKS)
        b_mean = tl.load(mean_ptr + i_row, mask=m_row, other=0.0)[:, None]
        b_rstd = tl.load(rstd_ptr + i_row, mask=m_row, other=0.0)[:, None]

        # Masked rows have grad 0 and rstd 0, masked columns grad 0 and weight 0: both add nothing.
        b_inner_sum = tl.zeros([ROWS, CHUNK], tl.float32)
        b_normal_sum = tl.zeros([ROWS, CHUNK], tl.float32)
        for c in tl.static_range(CHUNKS):
            b_out = b_grad[c].to(tl.float32)
            b_normal = (b_stream[c].to(tl.float32) - b_mean) * b_rstd
            if KEEP_WEIGHT:
                b_inner = b_out * b_weight[c]
            else:
                b_inner = b_out * load_vector(weight_ptr, c, WIDTH, ROWS, CHUNK)
            b_inner_sum += b_inner
            b_normal_sum += b_inner * b_normal
        b_shift, b_slope = tl.reduce((b_inner_sum, b_normal_sum), 1, _add_pairs)
        b_shift = b_shift[:, None] * (1.0 / WIDTH)
        b_slope = b_slope[:, None] * (1.0 / WIDTH)

        if factor_ptr is not None:
            b_factor = tl.load(factor_ptr + i_row // n_tokens, mask=m_row, other=0.0)
            b_factor = b_factor.to(tl.float32)[:, None]
        b_new_weight = ()
        b_new_bias = ()
        b_new_delta_bias = ()
        b_new_scale = ()
        for c in tl.static_range(CHUNKS):
            b_normal = (b_stream[c].to(tl.float32) - b_mean) * b_rstd
            b_out = b_grad[c].to(tl.float32)
            b_new_weight = b_new_weight + (b_grad_weight[c] + b_out * b_normal,)  # noqa: RUF005
            b_new_bias = b_new_bias + (b_grad_bias[c] + b_out,)  # noqa: RUF005
            if KEEP_WEIGHT:
                b_inner = b_out * b_weight[c]
            else:
                b_inner = b_out * load_vector(weight_ptr, c, WIDTH, ROWS, CHUNK)
            b_chunk = b_rstd * (b_inner - b_shift - b_normal * b_slope)
            if grad_stream_ptr is not None:
                b_chunk += b_residual[c].to(tl.float32)
            store_chunk(grad_x_ptr, o_row * WIDTH, m_row, b_chunk, c, WIDTH, CHUNK)
            if factor_ptr is not None:
                b_chunk *= b_factor
            if scale_ptr is not None:
                b_branch = b_delta[c].to(tl.float32)
                if delta_bias_ptr is not None:
                    b_branch += load_vector(delta_bias_ptr, c, WIDTH, ROWS, CHUNK)
                b_new_scale = b_new_scale + (b_grad_scale[c] + b_chunk * b_branch,)  # noqa: RUF005
                b_chunk *= load_vector(scale_ptr, c, WIDTH, ROWS, CHUNK)
            if HAS_DELTA_BIAS:
                b_new_delta_bias = b_new_delta_bias + (b_grad_delta_bias[c] + b_chunk,)  # noqa: RUF005
            if grad_delta_ptr is not None:
                store_chunk(grad_delta_ptr, o_row * WIDTH, m_row, b_chunk, c, WIDTH, CHUNK)
        b_grad_weight = b_new_weight
        b_grad_bias = b_new_bias
        if HAS_DELTA_BIAS:
            b_grad_delta_bias = b_new_delta_bias
        if scale_ptr is not None:
            b_grad_scale = b_new_scale

    p_sums = partial_ptr + tl.program_id(0) * WIDTH
    n_sum = tl.num_programs(0) * WIDTH
    _store_pairs(p_sums, n_sum, b_grad_weight, b_grad_bias, WIDTH, ROWS, CHUNK, CHUNKS)
    if HAS_DELTA_BIAS:
        _store_sums(p_sums + 2 * n_sum, b_grad_delta_bias, WIDTH, ROWS, CHUNK, CHUNKS)
        if scale_ptr is not None:
            _store_sums(p_sums + 3 * n_sum, b_grad_scale, WIDTH, ROWS, CHUNK, CHUNKS)
    elif scale_ptr is not None:
        _store_sums(p_sums + 2 * n_sum, b_grad_scale, WIDTH, ROWS, CHUNK, CHUNKS)


def forward(args: Arguments) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(normalised, stream) [B, N, D] and (mean, rstd) fp32 [B, N]; see ops/add_layer_norm.py."""
    return _launch_forward(args, None, None)


def forward_fp8(args: Arguments) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The same, and the normalised rows in e4m3 [B, N, D] with their scales, fp32 [B, N]."""
    values, scales = empty_quantized(args.x)
    return (*_launch_forward(args, values, scales), values, scales)


def _launch_forward(
    args: Arguments, values: Tensor | None, row_scales: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    x = args.x
    clips, tokens, width = x.shape
    rows = clips * tokens
    out, stream = (torch.empty(x.shape, dtype=x.dtype, device=x.device) for _ in range(2))
    mean, rstd = (
        torch.empty((clips, tokens), dtype=torch.float32, device=x.device) for _ in range(2)
    )
    if rows == 0:
        return out, stream, mean, rstd
    x_rows, delta_rows = as_rows(x), as_rows(args.delta)
    cut = forward_tiling(width, x.element_size())
    tensors = (
        x_rows,
        delta_rows,
        *contiguous(args.weight, args.bias, args.delta_bias, args.scale, args.factor),
        out,
        stream,
        mean,
        rstd,
        values,
        row_scales,
    )
    rest = (x_rows.stride(0), delta_rows.stride(0), args.eps)
    constants = cut.constants(width)
    name = "add_layer_norm" if values is None else "add_layer_norm_fp8"
    with torch.cuda.device_of(x):
        most = programs_at_once(
            _forward,
            (*tensors, rows, tokens, cut.rows, *rest),
            constants,
            cut.warps,
            x.device,
            assumed_registers(name, width),
            LAUNCH.programs,
        )
        programs, run = row_runs(rows, cut, most)
        _forward[(programs,)](*tensors, rows, tokens, run, *rest, **constants, num_warps=cut.warps)
    return out, stream, mean, rstd


def backward(args: Arguments) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of x, delta, weight, bias, delta_bias, scale; see ops/add_layer_norm.py."""
    stream, weight = args.stream, args.weight
    scale, factor, has_delta_bias = args.scale, args.factor, args.has_delta_bias
    _, tokens, width = stream.shape
    rows = stream.shape[0] * tokens
    scaled = scale is not None
    own_delta = scaled or factor is not None
    grad_x = torch.empty(stream.shape, dtype=stream.dtype, device=stream.device)
    grad_delta = torch.empty(
        stream.shape if own_delta else (0,), dtype=stream.dtype, device=stream.device
    )
    vectors = [
        torch.empty(width if wanted else 0, dtype=weight.dtype, device=weight.device)
        for wanted in (True, True, has_delta_bias, scaled)
    ]
    sums = [vector for vector in vectors if vector.numel()]
    if rows == 0:
        for vector in sums:
            vector.zero_()
        return grad_x, grad_delta, vectors[0], vectors[1], vectors[2], vectors[3]

    cut = backward_tiling(width, stream.element_size(), len(sums), scaled=scaled)
    grad_rows, stream_rows = as_rows(args.grad_out), as_rows(stream)
    residual_rows = None if args.grad_stream is None else as_rows(args.grad_stream)
    delta_rows = as_rows(args.delta) if scaled else None
    tensors = (
        grad_rows,
        residual_rows,
        stream_rows,
        *contiguous(args.mean, args.rstd, weight),
        delta_rows,
        *contiguous(args.delta_bias if scaled else None, scale, factor),
        grad_x,
        grad_delta if own_delta else None,
    )
    strides = (
        grad_rows.stride(0),
        0 if residual_rows is None else residual_rows.stride(0),
        stream_rows.stride(0),
        0 if delta_rows is None else delta_rows.stride(0),
    )
    given = (grad_rows, residual_rows, stream_rows, delta_rows)
    dense = all(each is None or each.stride(0) == width for each in given)
    few = _few(stream.element_size(), scaled)
    stages = LAUNCH.backward_stages if few else 1
    constants = {
        "DENSE": dense,
        "HAS_DELTA_BIAS": has_delta_bias,
        **cut.constants(width),
        "STAGES": stages,
        "KEEP_WEIGHT": stages > 1 or (LAUNCH.keep_weight and few),
    }
    with torch.cuda.device_of(stream):
        most = programs_at_once(
            _backward,
            (*tensors, torch.float32, rows, tokens, cut.rows, *strides),
            constants,
            cut.warps,
            stream.device,
            assumed_registers("add_layer_norm_backward", width),
            LAUNCH.programs,
        )
        programs, run = row_runs(rows, cut, most)
        partial = torch.empty(
            (len(sums), programs, width), dtype=torch.float32, device=stream.device
        )
        _backward[(programs,)](
            *tensors, partial, rows, tokens, run, *strides, **constants, num_warps=cut.warps
        )
        sum_columns(partial, sums)
    return grad_x, grad_delta, vectors[0], vectors[1], vectors[2], vectors[3]
