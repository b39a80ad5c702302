"""The scout: one warp that takes items, and looks up all that others must know before they begin.

Whoever is free takes the longest item that is left. What an item is stands behind a chain of
look-ups of a few microseconds, in which a short item is over: so the scout looks the next one up
while this one is copied, and takes it no sooner, since another program may be free before.
"""

from __future__ import annotations

from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import mbarrier
from triton.language.extra.cuda import gdc_launch_dependents

from bough.kernels.gluon.grouped.claim import NUM_ARRAYS, NUM_CLAIMS, NUM_FIELDS
from bough.kernels.gluon.grouped.tile import (
    BLOCK_BITS,
    FEW_ROWS,
    MANY_ROWS,
    MOST_PACK_BITS,
    MOST_ROWS,
    Rows,
    Tile,
    count_lanes,
    count_rounds,
    count_visible,
    find_segment,
)

ONE = gl.constexpr(gl.BlockedLayout([1], [32], [1], [0]))
ROW = gl.constexpr(gl.BlockedLayout([4], [32], [1], [0]))


@gluon.jit
def scout_items(tables, shared, SHAPE: gl.constexpr, BLOCK: gl.constexpr):
    """Take item after item and publish what it is; at the end, a tile without rows."""
    claims = shared.claims
    # Asked for together: the first item is there even where none is left.
    at = gl.program_id(0)
    num_items = gl.load(tables.num_items)
    item = gl.load(tables.items + at)
    turn = 0
    block = 0
    unit_0 = 0
    unit_1 = 0
    turned = 0
    while at < num_items:
        _await_slot(claims, turn)
        tile = _find_item(tables, claims, turn, item, block, unit_0, unit_1, SHAPE, BLOCK)
        if BLOCK.NUM_TURNED > 0:
            number = gl.full([1], 0, gl.int32, ONE) + turned
            shared.turned.first.index(turn % NUM_CLAIMS).store(number)
        _publish(claims, turn, tile)
        rounds = count_rounds(tile)
        lanes = count_lanes(tile)
        is_tall = tile.num_rows > MANY_ROWS
        num_blocks = rounds * lanes * tile.num_blocks
        block += num_blocks * BLOCK.NUM_PLACES
        if BLOCK.NUM_TURNED > 0:
            turned += gl.where(tile.num_rows > FEW_ROWS, num_blocks, 0)
        unit_0 += rounds
        unit_1 += gl.where(is_tall, rounds, rounds * (lanes - 1))
        mbarrier.wait(claims.wanted.index(0), turn & 1)
        turn += 1
        at = gl.num_programs(0) + gl.atomic_add(tables.num_claimed, 1, sem="relaxed")
        item = gl.load(tables.items + at, mask=at < num_items, other=0)
    # Once every program has its last item, those of the merge may come.
    gdc_launch_dependents()
    _await_slot(claims, turn)
    _publish(claims, turn, _no_tile())
    _reset(tables)


@gluon.jit
def _reset(tables):
    """Leave the counters at nothing for the next launch, as the last program to end."""
    done = gl.atomic_add(tables.num_claimed + 1, 1, sem="acq_rel")
    if done == gl.num_programs(0) - 1:
        gl.store(tables.num_claimed, 0)
        gl.store(tables.num_claimed + 1, 0)


@gluon.jit
def _await_slot(claims, turn):
    """Wait until all have read the item of NUM_CLAIMS turns ago."""
    mbarrier.wait(claims.empty.index(turn % NUM_CLAIMS), ((turn // NUM_CLAIMS) & 1) ^ 1)


@gluon.jit
def _publish(claims, turn, tile):
    """Write an item's numbers beside its rows, and tell."""
    slot = turn % NUM_CLAIMS
    for at in gl.static_range(NUM_FIELDS):
        number = gl.full([1], 0, gl.int64, ONE) + tile[at]
        claims.numbers.index(slot * NUM_FIELDS + at).store(number)
    gl.thread_barrier()
    mbarrier.arrive(claims.full.index(slot), count=1)


@gluon.jit
def _find_item(
    tables, claims, turn, item, block, unit_0, unit_1, SHAPE: gl.constexpr, BLOCK: gl.constexpr
):
    """Look up an item, which begins at some numbers of blocks and query tiles, and write its rows.

    What hangs on the same is asked for together: the tile, then its segment and queries, then where
    these stand.
    """
    tile = item // SHAPE.NUM_KV_HEADS
    num_queries = gl.load(tables.tile_num_queries + tile)
    query_begin = gl.load(tables.tile_query_begin + tile)
    num_heads = gl.load(tables.tile_num_heads + tile)
    first_segment = gl.load(tables.tile_segment_indptr + tile)
    last_segment = gl.load(tables.tile_segment_indptr + tile + 1)
    partial_start = gl.load(tables.tile_partial_start + tile)
    num_rows = num_queries * SHAPE.GROUP_SIZE
    # Heads of a pack share FEW_ROWS rows, and either consumer has a pack.
    pack_bits = 0
    for bits in gl.static_range(1, MOST_PACK_BITS + 1):
        fits = ((num_rows << bits) <= FEW_ROWS) & ((2 << bits) <= num_heads)
        pack_bits = gl.where(fits, bits, pack_bits)
    page_start = gl.load(tables.segment_page_start + first_segment)
    first_slot = gl.load(tables.segment_first_slot + first_segment)
    origin = gl.load(tables.segment_position + first_segment)
    num_reserved = gl.load(tables.segment_len + first_segment)
    first_query = gl.load(tables.query_indices + query_begin)
    last_query = gl.load(tables.query_indices + query_begin + num_queries - 1)
    query, is_row = _find_queries(tables, query_begin, num_rows, pack_bits, SHAPE)
    # Of a tile's queries, the last sees as far into it as any other.
    newest = gl.load(tables.query_position + last_query)
    oldest = gl.load(tables.query_position + first_query)
    position = gl.load(tables.query_position + query, mask=is_row, other=-1)
    num_tiles = gl.load(tables.query_num_tiles + query, mask=is_row, other=0)
    _write_rows(claims, turn, Rows(query, position, num_tiles))
    if tables.query_hidden is not None:
        # A draft may hide any of the 64 tokens before it.
        oldest -= 64
    token_bits = BLOCK_BITS + BLOCK.NUM_PLACES - 1 - pack_bits
    num_tokens = count_visible(origin, num_reserved, newest)
    num_blocks = _count_blocks(num_tokens, token_bits)
    for segment in range(first_segment + 1, last_segment):
        _, num_others = find_segment(tables, segment, newest)
        num_blocks += _count_blocks(num_others, token_bits)
    return Tile(
        page_start,
        item % SHAPE.NUM_KV_HEADS,
        num_heads,
        num_rows,
        pack_bits,
        token_bits,
        first_segment,
        last_segment,
        newest,
        oldest,
        partial_start,
        origin,
        num_tokens,
        num_blocks,
        first_slot,
        block,
        unit_0,
        unit_1,
    )


@gluon.jit
def _write_rows(claims, turn, rows):
    first = turn % NUM_CLAIMS * NUM_ARRAYS
    for at in gl.static_range(NUM_ARRAYS):
        claims.arrays.index(first + at).store(rows[at])


@gluon.jit
def _find_queries(tables, query_begin, num_rows, pack_bits, SHAPE: gl.constexpr):
    """Look up the queries of a tile's rows, those of packed heads one after the other."""
    place = gl.arange(0, MOST_ROWS, layout=ROW)
    row = gl.where(num_rows <= FEW_ROWS, place & ((FEW_ROWS >> pack_bits) - 1), place)
    is_row = row < num_rows
    ptrs = tables.query_indices + query_begin + row // SHAPE.GROUP_SIZE
    return gl.load(ptrs, mask=is_row, other=0), is_row


@gluon.jit
def _count_blocks(num_tokens, token_bits):
    return (num_tokens + (1 << token_bits) - 1) >> token_bits


@gluon.jit
def _no_tile():
    """What stands behind the last item."""
    return Tile(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)
