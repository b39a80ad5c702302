"""Which KV a program visits: its tile's segments, cut into blocks that producer and consumers
walk in step."""

from __future__ import annotations

from typing import Any, NamedTuple

from triton.experimental import gluon
from triton.experimental.gluon import language as gl


class Work(NamedTuple):
    """One program's share: rows of a tile on one stored head, over the tile's segments.

    Positions are those of requests; `stop` is one past the newest query's, and all queries see
    those up to `oldest`: the oldest query's, or what no draft hides.
    """

    tile: Any
    head: Any
    first_row: Any
    num_rows: Any
    query_begin: Any
    first_segment: Any
    num_blocks: Any
    stop: Any
    oldest: Any


@gluon.jit
def find_work(tables, SHAPE: gl.constexpr):
    """Read this program's item; no blocks where it has no item, or no rows.

    A program takes one of NUM_SLICES parts of an item's rows.
    """
    program = gl.program_id(0)
    place = program // SHAPE.NUM_SLICES
    # Past the items in use stand former ones, which can be looked up while these are counted.
    num_items = gl.load(tables.num_items)
    item = gl.load(tables.items + place)
    tile = item // SHAPE.NUM_KV_HEADS
    first_row = (program % SHAPE.NUM_SLICES) * SHAPE.BLOCK_ROWS
    num_rows = gl.load(tables.tile_num_queries + tile) * SHAPE.GROUP_SIZE
    query_begin = gl.load(tables.tile_query_begin + tile)
    # Queries of a tile ascend by position.
    first = gl.load(tables.query_indices + query_begin)
    num_before = gl.maximum(num_rows // SHAPE.GROUP_SIZE - 1, 0)
    last = gl.load(tables.query_indices + query_begin + num_before)
    oldest = gl.load(tables.query_position + first)
    if tables.query_hidden is not None:
        oldest -= 64
    stop = gl.load(tables.query_position + last) + 1
    first_segment = gl.load(tables.tile_segment_indptr + tile)
    last_segment = gl.load(tables.tile_segment_indptr + tile + 1)
    is_idle = (place >= num_items) | (first_row >= num_rows)
    last_segment = gl.where(is_idle, first_segment, last_segment)
    num_blocks = 0
    for segment in range(first_segment, last_segment):
        num_tokens = segment_tokens(tables, segment, stop)
        if SHAPE.IS_ALIGNED and num_tokens > 0:
            num_tokens += gl.load(tables.segment_first_slot + segment) % SHAPE.BLOCK_KV
        num_blocks += (num_tokens + SHAPE.BLOCK_KV - 1) // SHAPE.BLOCK_KV
    num_blocks = gl.where(is_idle, 0, gl.maximum(num_blocks, 1))
    return Work(
        tile,
        item % SHAPE.NUM_KV_HEADS,
        first_row,
        num_rows,
        query_begin,
        first_segment,
        num_blocks,
        stop,
        oldest,
    )


@gluon.jit
def segment_tokens(tables, segment, stop):
    """Tokens of a segment that the newest query sees; the segment may hold reserved slots."""
    seen = stop - gl.load(tables.segment_position + segment)
    return gl.maximum(gl.minimum(gl.load(tables.segment_len + segment), seen), 0)


@gluon.jit
def slots_before(tables, segment, SHAPE: gl.constexpr):
    """Slots of a segment's first block that lie before the segment: none unless it is aligned."""
    before = 0
    if SHAPE.IS_ALIGNED:
        before = gl.load(tables.segment_first_slot + segment) % SHAPE.BLOCK_KV
    return before


@gluon.jit
def open_segment(tables, work, segment, SHAPE: gl.constexpr):
    """Tokens of a segment, its first slot, and where its pages are listed.

    Aligned blocks begin at multiples of BLOCK_KV slots: what lies before the segment counts too.
    """
    num_tokens = segment_tokens(tables, segment, work.stop)
    slot = gl.load(tables.segment_first_slot + segment)
    page_ptr = tables.pages + gl.load(tables.segment_page_start + segment)
    if SHAPE.IS_ALIGNED:
        num_tokens += slot % SHAPE.BLOCK_KV
        slot -= slot % SHAPE.BLOCK_KV
    return num_tokens, slot, page_ptr


@gluon.jit
def segment_span(tables, segment, stop):
    """First position of a segment, and one past the last that the newest query sees."""
    origin = gl.load(tables.segment_position + segment)
    return origin, origin + segment_tokens(tables, segment, stop)
