"""The query rows of an item's heads, copied into shared memory."""

from __future__ import annotations

from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.ampere import async_copy
from triton.experimental.gluon.language.nvidia.hopper import mbarrier

from bough.kernels.gluon.grouped.tile import (
    FEW_ROWS,
    MANY_ROWS,
    count_lanes,
    find_query,
    unpack_rows,
)

# Eight neighbouring threads copy a row, 128 bytes at a time.
ROWS = gl.constexpr(gl.BlockedLayout([1, 8], [4, 8], [4, 1], [1, 0]))
ROW = gl.constexpr(gl.SliceLayout(1, ROWS))


@gluon.jit
def load_queries(
    queries, tables, shared, tile, head, units, SHAPE: gl.constexpr, BLOCK: gl.constexpr,
    IS_TALL: gl.constexpr,
):  # fmt: skip
    """Begin to copy each consumer's rows from `head` on; return the numbers of query tiles so far.

    A tall tile's rows are shared out among the consumers; of others, each has a pack of heads.
    """
    first, second = units
    other = head + (1 << tile.pack_bits)
    if IS_TALL:
        row = gl.arange(0, MANY_ROWS, layout=ROW)
        _load_rows(queries, tables, shared, tile, head, row, first, 0, SHAPE)
        _load_rows(queries, tables, shared, tile, head, MANY_ROWS + row, second, 1, SHAPE)
        second += 1
    else:
        lanes = count_lanes(tile)
        if BLOCK.HAS_FEW and tile.num_rows <= FEW_ROWS:
            part, row = unpack_rows(tile, gl.arange(0, FEW_ROWS, layout=ROW))
            _load_rows(queries, tables, shared, tile, head + part, row, first, 0, SHAPE)
            if lanes == 2:
                _load_rows(queries, tables, shared, tile, other + part, row, second, 1, SHAPE)
        if BLOCK.HAS_MANY and tile.num_rows > FEW_ROWS:
            row = gl.arange(0, MANY_ROWS, layout=ROW)
            _load_rows(queries, tables, shared, tile, head, row, first, 0, SHAPE)
            if lanes == 2:
                _load_rows(queries, tables, shared, tile, other, row, second, 1, SHAPE)
        second += lanes - 1
    return first + 1, second


@gluon.jit
def _load_rows(
    queries, tables, shared, tile, head, row, unit, GROUP: gl.constexpr, SHAPE: gl.constexpr
):
    """Begin to copy one consumer's query tile, rows `row` of heads `head`; zeros beyond them."""
    NUM_ROWS: gl.constexpr = row.shape[0]
    offs_dim = gl.arange(0, SHAPE.NOPE_DIM + SHAPE.ROPE_DIM, layout=gl.SliceLayout(0, ROWS))
    query = find_query(tables, tile, row, SHAPE).to(gl.int64)
    q_head = head * SHAPE.GROUP_SIZE + row % SHAPE.GROUP_SIZE
    ptrs = queries.ptr + query * queries.stride_token + q_head * queries.stride_head
    slot = GROUP * 2 + unit % 2
    mbarrier.wait(shared.q_empty.index(slot), ((unit // 2) & 1) ^ 1)
    async_copy.async_copy_global_to_shared(
        shared.q_tiles.index(slot).slice(0, NUM_ROWS),
        ptrs[:, None] + offs_dim[None, :],
        mask=(row < tile.num_rows)[:, None],
    )
    async_copy.mbarrier_arrive(shared.q_full.index(slot), increment_count=False)
