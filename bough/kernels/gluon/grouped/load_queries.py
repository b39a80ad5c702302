"""The query rows of an item's heads, copied into shared memory."""

from __future__ import annotations

from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.ampere import async_copy
from triton.experimental.gluon.language.nvidia.hopper import mbarrier

from bough.kernels.gluon.grouped.claim import read_rows
from bough.kernels.gluon.grouped.tile import FEW_ROWS, MANY_ROWS, count_lanes, unpack_rows

# Warps of the producer.
NUM_WARPS = gl.constexpr(4)
# Eight neighbouring threads copy a row, 128 bytes at a time.
ROWS = gl.constexpr(gl.BlockedLayout([1, 8], [4, 8], [4, 1], [1, 0]))
ROW = gl.constexpr(gl.SliceLayout(1, ROWS))


@gluon.jit
def load_queries(
    queries, shared, turn, tile, head, units, SHAPE: gl.constexpr, BLOCK: gl.constexpr
):
    """Begin to copy each consumer's rows from `head` on; return the numbers of query tiles so far.

    A tall tile's rows are shared out among the consumers; of others, each has a pack of heads.
    """
    first, second = units
    half = gl.where(tile.num_rows > MANY_ROWS, 1, 0)
    has_second = count_lanes(tile) + half == 2
    other = head + gl.where(half == 1, 0, 1 << tile.pack_bits)
    if BLOCK.HAS_FEW and tile.num_rows <= FEW_ROWS:
        _load_rows(queries, shared, turn, tile, head, first, 0, 0, FEW_ROWS, SHAPE)
        if has_second:
            _load_rows(queries, shared, turn, tile, other, second, 1, 0, FEW_ROWS, SHAPE)
    if BLOCK.HAS_MANY and tile.num_rows > FEW_ROWS:
        _load_rows(queries, shared, turn, tile, head, first, 0, 0, MANY_ROWS, SHAPE)
        if has_second:
            _load_rows(queries, shared, turn, tile, other, second, 1, half, MANY_ROWS, SHAPE)
    return first + 1, second + has_second.to(gl.int32)


@gluon.jit
def _load_rows(
    queries, shared, turn, tile, head, unit, GROUP: gl.constexpr, half, NUM: gl.constexpr,
    SHAPE: gl.constexpr,
):  # fmt: skip
    """Begin to copy one consumer's query tile, NUM rows of a half; zeros beyond them."""
    offs_dim = gl.arange(0, SHAPE.NOPE_DIM + SHAPE.ROPE_DIM, layout=gl.SliceLayout(0, ROWS))
    row = half * MANY_ROWS + gl.arange(0, NUM, layout=ROW)
    if NUM == FEW_ROWS:
        part, row = unpack_rows(tile, row)
        head += part
    query = read_rows(shared.claims, turn, half, NUM, ROW).query.to(gl.int64)
    q_head = head * SHAPE.GROUP_SIZE + row % SHAPE.GROUP_SIZE
    ptrs = queries.ptr + query * queries.stride_token + q_head * queries.stride_head
    slot = GROUP * 2 + unit % 2
    mbarrier.wait(shared.q_empty.index(slot), ((unit // 2) & 1) ^ 1)
    async_copy.async_copy_global_to_shared(
        shared.q_tiles.index(slot).slice(0, NUM),
        ptrs[:, None] + offs_dim[None, :],
        mask=(row < tile.num_rows)[:, None],
    )
    async_copy.mbarrier_arrive(shared.q_full.index(slot), increment_count=False)
