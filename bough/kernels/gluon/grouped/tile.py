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
# Rows of a tall tile, shared out among two consumers.
MOST_ROWS = gl.constexpr(128)


@triton.constexpr_function
def key_columns(shape):
    """Columns of what is stored as keys alone: the rotary key of tied specs, else whole keys."""
    return shape.ROPE_DIM if shape.ROPE_DIM > 0 else shape.NOPE_DIM


class Tile(NamedTuple):
    """One item: a tile's rows on `num_heads` stored heads from `first_head` on.

    A block holds the stored rows of 2^pack_bits heads, 2^token_bits tokens of each: what has few
    query rows a head is attended on several heads at once. `newest` is the last position
    that any query sees, `oldest` the last that all see. Of the first segment, `page_start` says
    where its pages are listed, `first_slot` where in the first page it begins, `origin` at
    which position, and `num_tokens` how long it is; all segments have `num_blocks` for one pack of
    heads. `block` and the units number the item's first block, and each consumer's first query
    tile, among the program's.
    """

    page_start: Any
    first_head: Any
    num_heads: Any
    num_rows: Any
    pack_bits: Any
    token_bits: Any
    first_segment: Any
    last_segment: Any
    newest: Any
    oldest: Any
    partial_start: Any
    origin: Any
    num_tokens: Any
    num_blocks: Any
    first_slot: Any
    block: Any
    unit_0: Any
    unit_1: Any


class Rows(NamedTuple):
    """Rows of a tile: the query of each, its position, and the tiles that it has in all.

    What the tile lacks has position -1 and no tiles.
    """

    query: Any
    position: Any
    num_tiles: Any


@gluon.jit
def find_segment(tables, segment, newest):
    """First position of a segment, and how many of its tokens some query sees."""
    origin = gl.load(tables.segment_position + segment)
    return origin, count_visible(origin, gl.load(tables.segment_len + segment), newest)


@gluon.jit
def count_visible(origin, num_reserved, newest):
    """How many tokens of a segment some query sees, one at least.

    What stands at a position after all queries is masked with the rest of its block.
    """
    return gl.maximum(gl.minimum(num_reserved, newest + 1 - origin), 1)


@gluon.jit
def count_lanes(tile):
    """Packs of heads that the consumers attend side by side: both the same of tall tiles."""
    is_pair = (tile.num_rows <= MANY_ROWS) & (tile.num_heads > 1)
    return gl.where(is_pair, 2, 1)


@gluon.jit
def count_rounds(tile):
    """How often the consumers go through all blocks, until every head had its turn."""
    return gl.cdiv(tile.num_heads, count_lanes(tile) << tile.pack_bits)


@gluon.jit
def unpack_rows(tile, row):
    """Head of its pack, and row there, of each of a packed tile's FEW_ROWS rows."""
    bits = FEW_BITS - tile.pack_bits
    return row >> bits, row & ((1 << bits) - 1)
