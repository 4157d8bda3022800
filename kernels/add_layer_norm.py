"""Residual add and LayerNorm, forward and backward: one pass over the rows each.

A row is cut into chunks that are powers of two and together as wide as the row, so that widths
like 768 or 1408 waste no lanes; a tile is a few rows, and where registers allow a row belongs to
one warp, so that its sums need shuffles only. See docs/kernels/add_layer_norm.md.
"""

# Tuples of blocks grow in the kernels: a name changes its type.
# mypy: disable-error-code="assignment"

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import torch
import triton
import triton.language as tl
from torch import Tensor

from videomae_fast.kernels.columns import sum_columns
from videomae_fast.kernels.host import cdiv
from videomae_fast.kernels.occupancy import assumed_registers, programs_at_once


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


@dataclass(frozen=True)
class Tiling:
    """A tile is `rows` rows of `chunks` chunks, each `chunk` values wide, in `warps` warps."""

    rows: int
    chunk: int
    chunks: int
    warps: int

    def constants(self, width: int) -> dict[str, int]:
        """What a kernel is told of it."""
        return {"WIDTH": width, "ROWS": self.rows, "CHUNK": self.chunk, "CHUNKS": self.chunks}


def forward_tiling(width: int, itemsize: int) -> Tiling:
    """Of the forward kernel, which holds x, delta and the stream."""
    return _tiling(width, itemsize, 3, LAUNCH.num_warps, LAUNCH.lane_values)


def backward_tiling(width: int, itemsize: int, sums: int, *, scaled: bool) -> Tiling:
    """Of the backward kernel, which holds its sums and three or four inputs, as in memory.

    The counts are those with which no official width spills: see tests/kernels/aot.py.
    """
    live = sums + 2 * itemsize - 2 + 3 * scaled
    values = LAUNCH.backward_lane_values if _few(itemsize, scaled) else LAUNCH.lane_values
    return _tiling(width, itemsize, live, LAUNCH.backward_warps, values)


def _few(itemsize: int, scaled: bool) -> bool:
    """Whether backward holds few enough bytes to load ahead or to keep the weight.

    fp32 takes twice the memory, and LayerScale's vectors would be copied with every tile.
    """
    return itemsize == 2 and not scaled


@cache
def _tiling(width: int, itemsize: int, live: int, warps: int, lane_values: int) -> Tiling:
    """How rows of a width are cut.

    Loads of 16 or 8 bytes per lane; the least padding first, then a row in one warp, then wide
    loads, then few values per lane.

    Args:
        width: of a row.
        itemsize: bytes of an element of the stream.
        live: fp32 values that are held at once per element of a tile.
        warps: of a program, at least.
        lane_values: fp32 values that a lane may hold.
    """
    options = []
    for vector in {max(4, 16 // itemsize), 4}:
        for lanes in (4, 8, 16, 32, 64, 128):
            chunk = lanes * vector
            chunks = cdiv(width, chunk)
            if chunks * vector * live <= lane_values or lanes == 128:
                options.append(
                    ((chunks * chunk, lanes > 32, -vector, -lanes), chunk, chunks, lanes)
                )
    _, chunk, chunks, lanes = min(options)
    warps = max(warps, lanes // 32)
    return Tiling(warps * 32 // lanes, chunk, chunks, warps)


def _runs(rows: int, cut: Tiling, most: int) -> tuple[int, int]:
    """(programs, rows of each) for a number of rows and the most programs that run at once.

    Runs are as equal as rows allow, not whole tiles: rows of the last tile that another program
    has are masked, and with few rows more of the programs that fit are there to load.
    """
    run = cdiv(rows, min(most, cdiv(rows, cut.rows)))
    return cdiv(rows, run), run


@triton.jit
def _mask(m_row, c: tl.constexpr, WIDTH: tl.constexpr, CHUNK: tl.constexpr):
    """[ROWS, 1] or [ROWS, CHUNK], True where chunk `c` of a tile exists."""
    m_block = m_row[:, None]
    if (c + 1) * CHUNK > WIDTH:
        m_block = m_block & (c * CHUNK + tl.arange(0, CHUNK) < WIDTH)[None, :]
    return m_block


@triton.jit
def _load_rows(p, o_row, m_row, WIDTH: tl.constexpr, CHUNK: tl.constexpr, CHUNKS: tl.constexpr):
    """`CHUNKS` blocks [ROWS, CHUNK]; `o_row` [ROWS] is the offset of each row.

    They stay in the dtype of memory until used: half the registers for 16-bit types.
    """
    b_rows = ()
    for c in tl.static_range(CHUNKS):
        o_block = o_row[:, None] + (c * CHUNK + tl.arange(0, CHUNK))[None, :]
        b_chunk = tl.load(p + o_block, mask=_mask(m_row, c, WIDTH, CHUNK), other=0.0)
        b_rows = b_rows + (b_chunk,)  # noqa: RUF005 - what Triton's language has
    return b_rows


@triton.jit
def _store_chunk(
    p, o_row, m_row, b_chunk, c: tl.constexpr, WIDTH: tl.constexpr, CHUNK: tl.constexpr
):
    o_block = o_row[:, None] + (c * CHUNK + tl.arange(0, CHUNK))[None, :]
    b_chunk = b_chunk.to(p.dtype.element_ty)
    tl.store(p + o_block, b_chunk, mask=_mask(m_row, c, WIDTH, CHUNK))


@triton.jit
def _load_vector(p, c: tl.constexpr, WIDTH: tl.constexpr, ROWS: tl.constexpr, CHUNK: tl.constexpr):
    """Chunk `c` of a vector [WIDTH], in fp32 [ROWS, CHUNK].

    Every row loads it, into the lanes that use it: a load [CHUNK] would be laid out over the
    program's lanes in its own way, and reach the rows through shared memory and barriers.
    """
    o_col = c * CHUNK + tl.arange(0, CHUNK)
    o_block = tl.broadcast_to(o_col[None, :], [ROWS, CHUNK])
    b_chunk = tl.load(p + o_block, mask=o_block < WIDTH, other=0.0, eviction_policy="evict_last")
    return b_chunk.to(tl.float32)


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
        b_x = _load_rows(x_ptr, o_row * x_stride, m_row, WIDTH, CHUNK, CHUNKS)
        b_delta = _load_rows(delta_ptr, o_row * delta_stride, m_row, WIDTH, CHUNK, CHUNKS)
        b_stream = ()
        b_sum = tl.zeros([ROWS, CHUNK], tl.float32)
        for c in tl.static_range(CHUNKS):
            b_branch = b_delta[c].to(tl.float32)
            if delta_bias_ptr is not None:
                b_branch += _load_vector(delta_bias_ptr, c, WIDTH, ROWS, CHUNK)
            if scale_ptr is not None:
                b_branch *= _load_vector(scale_ptr, c, WIDTH, ROWS, CHUNK)
            if factor_ptr is not None:
                b_factor = tl.load(factor_ptr + i_row // n_tokens, mask=m_row, other=0.0)
                b_branch *= b_factor.to(tl.float32)[:, None]
            # The norm is that of the stream as stored: backward sees no more.
            b_chunk = b_x[c].to(tl.float32) + b_branch
            b_chunk = b_chunk.to(stream_ptr.dtype.element_ty).to(tl.float32)
            b_stream = b_stream + (b_chunk,)  # noqa: RUF005
            _store_chunk(stream_ptr, o_row * WIDTH, m_row, b_chunk, c, WIDTH, CHUNK)
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
        for c in tl.static_range(CHUNKS):
            b_normal = (b_stream[c] - b_mean[:, None]) * b_rstd[:, None]
            b_out = b_normal * _load_vector(weight_ptr, c, WIDTH, ROWS, CHUNK)
            b_out += _load_vector(bias_ptr, c, WIDTH, ROWS, CHUNK)
            _store_chunk(out_ptr, o_row * WIDTH, m_row, b_out, c, WIDTH, CHUNK)
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
    p,
    b_rows,
    WIDTH: tl.constexpr,
    ROWS: tl.constexpr,
    CHUNK: tl.constexpr,
    CHUNKS: tl.constexpr,
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
            b_weight = b_weight + (_load_vector(weight_ptr, c, WIDTH, ROWS, CHUNK),)  # noqa: RUF005
    i_start = tl.program_id(0) * n_run
    i_end = tl.minimum(i_start + n_run, n_rows)
    for i_tile in tl.range(i_start, i_end, ROWS, num_stages=STAGES):
        i_row = i_tile + tl.arange(0, ROWS)
        m_row = i_row < i_end
        o_row = i_row.to(tl.int64)
        b_grad = _load_rows(grad_out_ptr, o_row * grad_out_stride, m_row, WIDTH, CHUNK, CHUNKS)
        b_stream = _load_rows(stream_ptr, o_row * stream_stride, m_row, WIDTH, CHUNK, CHUNKS)
        if grad_stream_ptr is not None:
            b_residual = _load_rows(
                grad_stream_ptr, o_row * grad_stream_stride, m_row, WIDTH, CHUNK, CHUNKS
            )
        if scale_ptr is not None:
            b_delta = _load_rows(delta_ptr, o_row * delta_stride, m_row, WIDTH, CHUNK, CHUNKS)
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
                b_inner = b_out * _load_vector(weight_ptr, c, WIDTH, ROWS, CHUNK)
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
                b_inner = b_out * _load_vector(weight_ptr, c, WIDTH, ROWS, CHUNK)
            b_chunk = b_rstd * (b_inner - b_shift - b_normal * b_slope)
            if grad_stream_ptr is not None:
                b_chunk += b_residual[c].to(tl.float32)
            _store_chunk(grad_x_ptr, o_row * WIDTH, m_row, b_chunk, c, WIDTH, CHUNK)
            if factor_ptr is not None:
                b_chunk *= b_factor
            if scale_ptr is not None:
                b_branch = b_delta[c].to(tl.float32)
                if delta_bias_ptr is not None:
                    b_branch += _load_vector(delta_bias_ptr, c, WIDTH, ROWS, CHUNK)
                b_new_scale = b_new_scale + (b_grad_scale[c] + b_chunk * b_branch,)  # noqa: RUF005
                b_chunk *= _load_vector(scale_ptr, c, WIDTH, ROWS, CHUNK)
            if HAS_DELTA_BIAS:
                b_new_delta_bias = b_new_delta_bias + (b_grad_delta_bias[c] + b_chunk,)  # noqa: RUF005
            if grad_delta_ptr is not None:
                _store_chunk(grad_delta_ptr, o_row * WIDTH, m_row, b_chunk, c, WIDTH, CHUNK)
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


def _rows(x: Tensor) -> Tensor:
    """[rows, width] with neighbouring columns, a view where the layout allows it."""
    x = x.reshape(-1, x.shape[-1])
    return x if x.stride(-1) == 1 else x.contiguous()


def forward(
    x: Tensor,
    delta: Tensor,
    weight: Tensor,
    bias: Tensor,
    delta_bias: Tensor | None,
    scale: Tensor | None,
    factor: Tensor | None,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(normalised, stream) [B, N, D] and (mean, rstd) fp32 [B, N]; see ops/add_layer_norm.py."""
    clips, tokens, width = x.shape
    rows = clips * tokens
    out, stream = (torch.empty(x.shape, dtype=x.dtype, device=x.device) for _ in range(2))
    mean, rstd = (
        torch.empty((clips, tokens), dtype=torch.float32, device=x.device) for _ in range(2)
    )
    if rows == 0:
        return out, stream, mean, rstd
    x_rows, delta_rows = _rows(x), _rows(delta)
    cut = forward_tiling(width, x.element_size())
    tensors = (
        x_rows,
        delta_rows,
        weight.contiguous(),
        bias.contiguous(),
        None if delta_bias is None else delta_bias.contiguous(),
        None if scale is None else scale.contiguous(),
        None if factor is None else factor.contiguous(),
        out,
        stream,
        mean,
        rstd,
    )
    rest = (x_rows.stride(0), delta_rows.stride(0), eps)
    constants = cut.constants(width)
    with torch.cuda.device_of(x):
        most = programs_at_once(
            _forward,
            (*tensors, rows, tokens, cut.rows, *rest),
            constants,
            cut.warps,
            x.device,
            assumed_registers("add_layer_norm", width),
            LAUNCH.programs,
        )
        programs, run = _runs(rows, cut, most)
        _forward[(programs,)](*tensors, rows, tokens, run, *rest, **constants, num_warps=cut.warps)
    return out, stream, mean, rstd


def backward(
    grad_out: Tensor,
    grad_stream: Tensor | None,
    stream: Tensor,
    mean: Tensor,
    rstd: Tensor,
    weight: Tensor,
    delta: Tensor | None,
    delta_bias: Tensor | None,
    scale: Tensor | None,
    factor: Tensor | None,
    has_delta_bias: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of x, delta, weight, bias, delta_bias, scale; see ops/add_layer_norm.py."""
    _, tokens, width = stream.shape
    rows = stream.shape[0] * tokens
    own_delta = scale is not None or factor is not None
    grad_x = torch.empty(stream.shape, dtype=stream.dtype, device=stream.device)
    grad_delta = torch.empty(
        stream.shape if own_delta else (0,), dtype=stream.dtype, device=stream.device
    )
    vectors = [
        torch.empty(width if wanted else 0, dtype=weight.dtype, device=weight.device)
        for wanted in (True, True, has_delta_bias, scale is not None)
    ]
    sums = [vector for vector in vectors if vector.numel()]
    if rows == 0:
        for vector in sums:
            vector.zero_()
        return grad_x, grad_delta, vectors[0], vectors[1], vectors[2], vectors[3]

    cut = backward_tiling(width, stream.element_size(), len(sums), scaled=scale is not None)
    grad_rows, stream_rows = _rows(grad_out), _rows(stream)
    residual_rows = None if grad_stream is None else _rows(grad_stream)
    delta_rows = None if scale is None or delta is None else _rows(delta)
    tensors = (
        grad_rows,
        residual_rows,
        stream_rows,
        mean.contiguous(),
        rstd.contiguous(),
        weight.contiguous(),
        delta_rows,
        None if scale is None or delta_bias is None else delta_bias.contiguous(),
        None if scale is None else scale.contiguous(),
        None if factor is None else factor.contiguous(),
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
    few = _few(stream.element_size(), scale is not None)
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
        programs, run = _runs(rows, cut, most)
        partial = torch.empty(
            (len(sums), programs, width), dtype=torch.float32, device=stream.device
        )
        _backward[(programs,)](
            *tensors, partial, rows, tokens, run, *strides, **constants, num_warps=cut.warps
        )
        sum_columns(partial, sums)
    return grad_x, grad_delta, vectors[0], vectors[1], vectors[2], vectors[3]
