"""The kernel that divides nodes into tiles, so that workers end together and all tables suffice."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def divide_nodes(
    nodes,
    rates,
    num_rows,
    fixed_seconds,
    workers,
    most_tiles,
    most_partials,
    MAX_QUERIES: tl.constexpr,
    KV_QUANTUM: tl.constexpr,
    ROWS: tl.constexpr,
    NUM_HALVINGS: tl.constexpr,
):
    """Cut queries to the height of a tile, and KV into pieces of about one worker's share.

    One program. `workers` counts those of one head split. A node that is folded is read by the
    nodes below it, from where it starts. Where even undivided nodes have more tiles or partials
    than the tables hold, every row is read on its own, which never has any.
    """
    node = tl.arange(0, 2 * ROWS)
    mask = (node % ROWS) < num_rows
    num_queries = tl.load(nodes.num_rows + node, mask=mask, other=0)
    start = _unfolded_start(nodes, node, mask)
    stop = tl.load(nodes.stop + node, mask=mask, other=0)
    is_folded = tl.load(nodes.is_folded + node, mask=mask, other=0) > 0
    num_queries = tl.where(is_folded | (stop <= start), 0, num_queries)
    is_shared = (start > 0) | (tl.load(nodes.has_children + node, mask=mask, other=0) > 0)

    num_tiles = tl.sum(_num_blocks(num_queries, MAX_QUERIES), 0)
    num_partials = tl.sum(tl.where(is_shared, num_queries, 0), 0)
    is_apart = (num_tiles > most_tiles) | (num_partials > most_partials)
    is_alone = is_apart & (node >= ROWS) & (stop > 0)
    num_queries = tl.where(is_apart, is_alone.to(tl.int32), num_queries)
    start = tl.where(is_apart, 0, start)
    is_shared = is_shared & (is_apart == 0)

    num_blocks = _num_blocks(num_queries, MAX_QUERIES)
    block_size = tl.cdiv(num_queries, tl.maximum(num_blocks, 1))
    rate = tl.load(rates + block_size)
    num_tokens = tl.where(num_queries > 0, stop - start, 0)
    work = rate * num_tokens
    total = tl.sum(work * num_blocks, 0)
    undivided = tl.sum(num_blocks, 0) * fixed_seconds + total
    # Seconds of a worker that are too few, or just so, and seconds that suffice. A tile takes no
    # less than twice its fixed cost: smaller ones would cost more than they spare.
    low = tl.maximum(total / workers, 2 * fixed_seconds)
    high = tl.maximum(undivided / workers, tl.max(work, 0) + fixed_seconds)
    high = tl.maximum(high, low) * 1.001
    for _ in range(NUM_HALVINGS):
        middle = tl.sqrt(low * high)
        pieces = _num_pieces(work, middle - fixed_seconds)
        num_tiles = tl.sum(pieces * num_blocks, 0)
        divided = tl.where(is_shared | (pieces > 1), pieces * num_queries, 0)
        fits = (num_tiles <= most_tiles) & (tl.sum(divided, 0) <= most_partials)
        fits = fits & (num_tiles * fixed_seconds + total <= middle * workers)
        high = tl.where(fits, middle, high)
        low = tl.where(fits, low, middle)
    pieces = _num_pieces(work, high - fixed_seconds)
    tile_tokens = tl.cdiv(tl.cdiv(num_tokens, pieces), KV_QUANTUM) * KV_QUANTUM
    tile_tokens = tl.maximum(tile_tokens, KV_QUANTUM)
    pieces = tl.cdiv(num_tokens, tile_tokens)

    tl.store(nodes.start + node, start, mask=mask)
    tl.store(nodes.num_queries + node, num_queries, mask=mask)
    tl.store(nodes.block_size + node, block_size, mask=mask)
    tl.store(nodes.num_pieces + node, pieces, mask=mask)
    tl.store(nodes.tile_tokens + node, tile_tokens, mask=mask)
    tl.store(nodes.num_tiles + node, pieces * num_blocks, mask=mask)
    tl.store(nodes.tile_seconds + node, rate * tl.minimum(tile_tokens, num_tokens), mask=mask)
    has_partials = is_shared | (pieces > 1)
    tl.store(nodes.num_partials + node, tl.where(has_partials, pieces * num_queries, 0), mask=mask)


@triton.jit
def _unfolded_start(nodes, node, mask):
    """Where each node starts to read: above it, as far as nodes are folded."""
    start = tl.load(nodes.start + node, mask=mask, other=0)
    above = tl.load(nodes.parent + node, mask=mask, other=-1)
    goes_up = (above >= 0) & (tl.load(nodes.is_folded + above, mask=above >= 0, other=0) > 0)
    while tl.max(goes_up.to(tl.int32), 0) > 0:
        start = tl.where(goes_up, tl.load(nodes.start + above, mask=goes_up, other=0), start)
        above = tl.where(goes_up, tl.load(nodes.parent + above, mask=goes_up, other=-1), -1)
        goes_up = (above >= 0) & (tl.load(nodes.is_folded + above, mask=above >= 0, other=0) > 0)
    return start


@triton.jit
def _num_blocks(num_queries, MAX_QUERIES: tl.constexpr):
    return (num_queries + MAX_QUERIES - 1) // MAX_QUERIES


@triton.jit
def _num_pieces(work, spare):
    """[nodes] tiles of at most `spare` seconds, fixed cost apart."""
    return tl.maximum(tl.ceil(work / tl.maximum(spare, 1e-9)), 1.0).to(tl.int32)
