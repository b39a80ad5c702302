"""What an item is: its tile, the stored heads it covers, and the blocks of its segments."""

from __future__ import annotations

from typing import Any, NamedTuple

import triton
from triton.experimental import gluon
from triton.experimental.gluon import language as gl

# Stored rows of a place for a block are 2^BLOCK_BITS; heads that it may hold side by side are
# 2^MOST_PACK_BITS.
BLOCK_BITS = gl.constexpr(6)
MOST_PACK_BITS = gl.constexpr(3)
# Rows of tiles whose products are turned round, and of a warpgroup otherwise.
FEW_BITS = gl.constexpr(4)
FEW_ROWS = gl.constexpr(16)
MANY_ROWS = gl.constexpr(64)


@triton.constexpr_function
def key_columns(shape):
    """Columns of what is stored as keys alone: the rotary key of tied specs, else whole keys."""
    return shape.ROPE_DIM if shape.ROPE_DIM > 0 else shape.NOPE_DIM


class Tile(NamedTuple):
    """One item: a tile's rows on `num_heads` stored heads from `first_head` on.

    A block holds the stored rows of 2^pack_bits heads, 2^token_bits tokens of each: what has few
    query rows a head is attended on several heads at once. `newest` is the last position
    that any query sees, `oldest` the last that all see. `block` and the units number the item's
    first block, and each consumer's first query tile, among the program's.
    """

    index: Any
    first_head: Any
    num_heads: Any
    num_rows: Any
    pack_bits: Any
    token_bits: Any
    query_begin: Any
    first_segment: Any
    last_segment: Any
    newest: Any
    oldest: Any
    block: Any
    unit_0: Any
    unit_1: Any


@gluon.jit
def find_tile(tables, at, block, units, SHAPE: gl.constexpr, BLOCK: gl.constexpr):
    """Read what item number `at` is, which begins at some numbers of blocks and query tiles."""
    item = gl.load(tables.items + at)
    tile = item // SHAPE.NUM_KV_HEADS
    num_queries = gl.load(tables.tile_num_queries + tile)
    query_begin = gl.load(tables.tile_query_begin + tile)
    num_heads = gl.load(tables.tile_num_heads + tile)
    first_segment = gl.load(tables.tile_segment_indptr + tile)
    last_segment = gl.load(tables.tile_segment_indptr + tile + 1)
    # Of a tile's queries, the last sees as far into it as any other.
    first = gl.load(tables.query_indices + query_begin)
    last = gl.load(tables.query_indices + query_begin + num_queries - 1)
    oldest = gl.load(tables.query_position + first)
    if tables.query_hidden is not None:
        # A draft may hide any of the 64 tokens before it.
        oldest -= 64
    num_rows = num_queries * SHAPE.GROUP_SIZE
    # Heads of a pack share FEW_ROWS rows, and either consumer has a pack.
    pack_bits = 0
    for bits in gl.static_range(1, MOST_PACK_BITS + 1):
        fits = ((num_rows << bits) <= FEW_ROWS) & ((2 << bits) <= num_heads)
        pack_bits = gl.where(fits, bits, pack_bits)
    return Tile(
        tile,
        item % SHAPE.NUM_KV_HEADS,
        num_heads,
        num_rows,
        pack_bits,
        gl.where(num_rows > MANY_ROWS, BLOCK.TALL_BITS, BLOCK_BITS - pack_bits),
        query_begin,
        first_segment,
        last_segment,
        gl.load(tables.query_position + last),
        oldest,
        block,
        units[0],
        units[1],
    )


@gluon.jit
def no_tile():
    """What stands behind the last item."""
    return Tile(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)


@gluon.jit
def find_segment(tables, segment, newest):
    """First position of a segment, and how many of its tokens some query sees, one at least.

    What stands at a position after all queries is masked with the rest of its block.
    """
    origin = gl.load(tables.segment_position + segment)
    num_tokens = gl.minimum(gl.load(tables.segment_len + segment), newest + 1 - origin)
    return origin, gl.maximum(num_tokens, 1)


@gluon.jit
def count_blocks(tables, tile):
    """Blocks of a tile on one pack of heads."""
    num_blocks = 0
    for segment in range(tile.first_segment, tile.last_segment):
        _, num_tokens = find_segment(tables, segment, tile.newest)
        num_blocks += (num_tokens + (1 << tile.token_bits) - 1) >> tile.token_bits
    return num_blocks


@gluon.jit
def count_lanes(tile):
    """Packs of heads that the consumers attend side by side: both the same of many rows."""
    is_pair = (tile.num_rows <= MANY_ROWS) & (tile.num_heads > 1)
    return gl.where(is_pair, 2, 1)


@gluon.jit
def unpack_rows(tile, row):
    """Head of its pack, and row there, of each of a packed tile's FEW_ROWS rows."""
    bits = FEW_BITS - tile.pack_bits
    return row >> bits, row & ((1 << bits) - 1)


@gluon.jit
def find_query(tables, tile, row, SHAPE: gl.constexpr):
    """Query of each of some rows, 0 for rows that the tile lacks."""
    is_row = row < tile.num_rows
    ptrs = tables.query_indices + tile.query_begin + row // SHAPE.GROUP_SIZE
    return gl.load(ptrs, mask=is_row, other=0)
