"""Kernels that write a plan's tables from divided nodes."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def place_nodes(
    nodes,
    tables,
    num_rows,
    NUM_ITEMS: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Number tiles, the longest first, and partials; count the items.

    So numbered, tiles stand in the order in which they run.
    """
    at = tl.arange(0, 2 * ROWS)
    mask = (at % ROWS) < num_rows
    num_tiles = tl.load(nodes.num_tiles + at, mask=mask, other=0)
    num_partials = tl.load(nodes.num_partials + at, mask=mask, other=0)
    seconds = tl.load(nodes.tile_seconds + at, mask=mask, other=0.0)
    if tl.program_id(0) == 0:
        tl.store(tables.num_items, tl.sum(num_tiles, 0) * NUM_ITEMS)

    node = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    mask = (node % ROWS) < num_rows
    own_seconds = tl.load(nodes.tile_seconds + node, mask=mask, other=0.0)[:, None]
    # [BLOCK, nodes]
    is_earlier = at[None, :] < node[:, None]
    is_longer = seconds[None, :] > own_seconds
    is_longer = is_longer | ((seconds[None, :] == own_seconds) & is_earlier)
    first_tile = tl.sum(tl.where(is_longer, num_tiles[None, :], 0), 1)
    first_partial = tl.sum(tl.where(is_earlier, num_partials[None, :], 0), 1)
    tl.store(nodes.first_tile + node, first_tile, mask=mask)
    tl.store(nodes.first_partial + node, first_partial, mask=mask)


@triton.jit
def write_tiles(
    nodes, order, tables, stride_row, num_rows, PAGE_SIZE: tl.constexpr, ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """Write the tiles of one node: blocks of queries, the pieces of each one after the other.

    The pages of any of its rows serve; a tile is one segment of that row.
    """
    node = tl.program_id(0)
    num_tiles = 0
    if node % ROWS < num_rows:
        num_tiles = tl.load(nodes.num_tiles + node)
    first_tile = tl.load(nodes.first_tile + node)
    first_row = tl.load(nodes.first_row + node)
    num_queries = tl.load(nodes.num_queries + node)
    size = tl.load(nodes.block_size + node)
    pieces = tl.load(nodes.num_pieces + node)
    tile_tokens = tl.load(nodes.tile_tokens + node)
    stop = tl.load(nodes.stop + node)
    first_partial = tl.load(nodes.first_partial + node)
    has_partials = tl.load(nodes.num_partials + node) > 0
    page_start = tl.load(order + first_row).to(tl.int64) * stride_row
    for low in range(0, num_tiles, BLOCK):
        within = low + tl.arange(0, BLOCK)
        mask = within < num_tiles
        tile = first_tile + within
        before = within // pieces * size
        piece = within % pieces
        count = tl.minimum(size, num_queries - before)
        begin = tl.load(nodes.start + node) + piece * tile_tokens
        partial = first_partial + before * pieces + piece * count
        tl.store(tables.tile_query_begin + tile, first_row + before, mask=mask)
        tl.store(tables.tile_num_queries + tile, count, mask=mask)
        tl.store(tables.tile_partial_start + tile, tl.where(has_partials, partial, -1), mask=mask)
        tl.store(tables.segment_page_start + tile, page_start + begin // PAGE_SIZE, mask=mask)
        tl.store(tables.segment_first_slot + tile, begin % PAGE_SIZE, mask=mask)
        tl.store(tables.segment_position + tile, begin, mask=mask)
        length = tl.minimum(tile_tokens, stop - begin)
        tl.store(tables.segment_len + tile, length, mask=mask)


@triton.jit
def write_queries(
    nodes, seq_lens, order, tables, num_rows, PAGE_SIZE: tl.constexpr, MAX_PAGES: tl.constexpr,
    ROWS: tl.constexpr,
):  # fmt: skip
    """Count the tiles of one row's query, and write its position."""
    place = tl.program_id(0)
    query = tl.load(order + place)
    num_tiles = tl.sum(_pieces_over(nodes, place, num_rows, ROWS), 0)
    length = tl.minimum(tl.maximum(tl.load(seq_lens + query), 0), PAGE_SIZE * MAX_PAGES)
    tl.store(tables.query_position + query, length - 1)
    tl.store(tables.query_num_tiles + query, num_tiles)


@triton.jit
def write_merges(nodes, order, tables, num_rows, ROWS: tl.constexpr):
    """List the partials of one row's query, node by node."""
    place = tl.program_id(0)
    query = tl.load(order + place)
    offs_query = tl.arange(0, ROWS)
    counts = tl.load(tables.query_num_tiles + offs_query, mask=offs_query < num_rows, other=0)
    counts = tl.where(counts > 1, counts, 0)
    begin = tl.sum(tl.where(offs_query < query, counts, 0), 0)
    num_partials = tl.sum(tl.where(offs_query == query, counts, 0), 0)
    tl.store(tables.merge_indptr + query + 1, begin + num_partials)
    if query == 0:
        tl.store(tables.merge_indptr, 0)
    if num_partials > 0:
        node = tl.arange(0, 2 * ROWS)
        pieces = _pieces_over(nodes, place, num_rows, ROWS)
        mask = pieces > 0
        num_queries = tl.load(nodes.num_queries + node, mask=mask, other=0)
        size = tl.load(nodes.block_size + node, mask=mask, other=1)
        within = place - tl.load(nodes.first_row + node, mask=mask, other=0)
        before = within // size * size
        step = tl.minimum(size, num_queries - before)
        partial = tl.load(nodes.first_partial + node, mask=mask, other=0)
        partial += before * pieces + within - before
        target = begin + tl.cumsum(pieces, 0) - pieces
        for piece in range(tl.max(pieces, 0)):
            tl.store(
                tables.merge_indices + target + piece, partial + piece * step, mask=piece < pieces
            )


@triton.jit
def _pieces_over(nodes, place, num_rows, ROWS: tl.constexpr):
    """[nodes] pieces of the nodes that the row at `place` reads, 0 for others."""
    node = tl.arange(0, 2 * ROWS)
    mask = (node % ROWS) < num_rows
    within = place - tl.load(nodes.first_row + node, mask=mask, other=0)
    num_queries = tl.load(nodes.num_queries + node, mask=mask, other=0)
    is_read = (within >= 0) & (within < num_queries)
    return tl.where(is_read, tl.load(nodes.num_pieces + node, mask=mask, other=0), 0)
