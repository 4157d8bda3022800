"""Rows in tiles, for kernels that hold whole rows: how they are cut, loaded and stored.

A row is cut into chunks that are powers of two and together as wide as the row, so that widths
like 768 or 1408 waste no lanes; a tile is a few rows, and where registers allow a row belongs to
one warp, so that its sums need shuffles only.
"""

# Tuples of blocks grow in the kernels: a name changes its type.
# mypy: disable-error-code="assignment"

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import triton
import triton.language as tl
from torch import Tensor

from videomae_fast.kernels.host import cdiv


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


@cache
def row_tiling(width: int, itemsize: int, live: int, warps: int, lane_values: int) -> Tiling:
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


def row_runs(rows: int, cut: Tiling, most: int) -> tuple[int, int]:
    """(programs, rows of each) for a number of rows and the most programs that run at once.

    Runs are as equal as rows allow, not whole tiles: rows of the last tile that another program
    has are masked, and with few rows more of the programs that fit are there to load.
    """
    run = cdiv(rows, min(most, cdiv(rows, cut.rows)))
    return cdiv(rows, run), run


@triton.jit
def chunk_mask(m_row, c: tl.constexpr, WIDTH: tl.constexpr, CHUNK: tl.constexpr):
    """[ROWS, 1] or [ROWS, CHUNK], True where chunk `c` of a tile exists."""
    m_block = m_row[:, None]
    if (c + 1) * CHUNK > WIDTH:
        m_block = m_block & (c * CHUNK + tl.arange(0, CHUNK) < WIDTH)[None, :]
    return m_block


@triton.jit
def load_rows(p, o_row, m_row, WIDTH: tl.constexpr, CHUNK: tl.constexpr, CHUNKS: tl.constexpr):
    """`CHUNKS` blocks [ROWS, CHUNK]; `o_row` [ROWS] is the offset of each row.

    They stay in the dtype of memory until used: half the registers for 16-bit types.
    """
    b_rows = ()
    for c in tl.static_range(CHUNKS):
        o_block = o_row[:, None] + (c * CHUNK + tl.arange(0, CHUNK))[None, :]
        b_chunk = tl.load(p + o_block, mask=chunk_mask(m_row, c, WIDTH, CHUNK), other=0.0)
        b_rows = b_rows + (b_chunk,)  # noqa: RUF005 - what Triton's language has
    return b_rows


@triton.jit
def store_chunk(
    p, o_row, m_row, b_chunk, c: tl.constexpr, WIDTH: tl.constexpr, CHUNK: tl.constexpr
):
    o_block = o_row[:, None] + (c * CHUNK + tl.arange(0, CHUNK))[None, :]
    b_chunk = b_chunk.to(p.dtype.element_ty)
    tl.store(p + o_block, b_chunk, mask=chunk_mask(m_row, c, WIDTH, CHUNK))


@triton.jit
def load_vector(p, c: tl.constexpr, WIDTH: tl.constexpr, ROWS: tl.constexpr, CHUNK: tl.constexpr):
    """Chunk `c` of a vector [WIDTH], in fp32 [ROWS, CHUNK].

    Every row loads it, into the lanes that use it: a load [CHUNK] would be laid out over the
    program's lanes in its own way, and reach the rows through shared memory and barriers.
    """
    o_col = c * CHUNK + tl.arange(0, CHUNK)
    o_block = tl.broadcast_to(o_col[None, :], [ROWS, CHUNK])
    b_chunk = tl.load(p + o_block, mask=o_block < WIDTH, other=0.0, eviction_policy="evict_last")
    return b_chunk.to(tl.float32)


def as_rows(x: Tensor) -> Tensor:
    """[rows, width] with neighbouring columns, a view where the layout allows it."""
    x = x.reshape(-1, x.shape[-1])
    return x if x.stride(-1) == 1 else x.contiguous()
