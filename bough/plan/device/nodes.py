"""The kernel that cuts ordered rows into nodes: columns that a run of neighbours shares."""

from __future__ import annotations

import triton
import triton.language as tl

from bough.plan.device.rows import num_columns


@triton.jit
def find_nodes(
    seq_lens,
    order,
    shared,
    rates,
    nodes,
    num_rows,
    partial_seconds,
    fixed_seconds,
    PAGE_SIZE: tl.constexpr,
    MAX_PAGES: tl.constexpr,
    MAX_QUERIES: tl.constexpr,
    ROWS: tl.constexpr,
):
    """Describe two nodes: the one that several rows share down to where row `place` parts from
    the one before it, and the one that row `place` has alone.

    The first is the same for all places of one run that part there; the first of them keeps it.
    Nodes of several rows have the index of their place, others follow behind ROWS.
    """
    place = tl.program_id(0)
    at = tl.arange(0, ROWS)
    all_shared = tl.load(shared + at, mask=at < num_rows, other=-1)
    here = tl.load(shared + place)
    begin = tl.max(tl.where((at < place) & (all_shared < here), at, 0), 0)
    end = tl.min(tl.where((at > place) & (all_shared < here), at, num_rows), 0)
    parts_here = (at > begin) & (at < end) & (all_shared == here)
    is_first = tl.min(tl.where(parts_here, at, num_rows), 0) >= place
    above = tl.maximum(tl.load(shared + begin), tl.load(shared + end))
    first_row = tl.load(order + begin)
    last_row = tl.load(order + end - 1)
    stop = tl.minimum(here * PAGE_SIZE, tl.load(seq_lens + last_row))
    num_tokens = stop - tl.maximum(above, 0) * PAGE_SIZE
    has_ends = num_columns(seq_lens, first_row, True, PAGE_SIZE, MAX_PAGES) <= here
    has_children = num_columns(seq_lens, last_row, True, PAGE_SIZE, MAX_PAGES) > here
    num_children = 1 + tl.sum(parts_here.to(tl.int32), 0)
    _store(nodes, place, begin, end - begin, above, stop, all_shared, at, num_rows, PAGE_SIZE)
    tl.store(nodes.num_rows + place, tl.where((here > 0) & is_first, end - begin, 0))
    tl.store(nodes.has_children + place, has_children.to(tl.int32))
    is_folded = _is_folded(
        num_tokens, end - begin, num_children, rates, partial_seconds, fixed_seconds, MAX_QUERIES
    )
    tl.store(nodes.is_folded + place, (is_folded & (has_ends == 0)).to(tl.int32))

    row = tl.load(order + place)
    columns = num_columns(seq_lens, row, True, PAGE_SIZE, MAX_PAGES)
    above = tl.maximum(tl.maximum(here, tl.load(shared + place + 1)), 0)
    stop = tl.minimum(columns * PAGE_SIZE, tl.load(seq_lens + row))
    leaf = ROWS + place
    _store(nodes, leaf, place, 1, above, stop, all_shared, at, num_rows, PAGE_SIZE)
    tl.store(nodes.num_rows + leaf, (columns > above).to(tl.int32))
    tl.store(nodes.has_children + leaf, 0)
    tl.store(nodes.is_folded + leaf, 0)


@triton.jit
def _store(
    nodes, node, first_row, num_rows, above, stop, all_shared, at, most, PAGE_SIZE: tl.constexpr
):
    """Write what all nodes have; the parent ends where `above` columns do, none above 0."""
    begin = tl.max(tl.where((at <= first_row) & (all_shared < above), at, 0), 0)
    parent = tl.min(tl.where((at > begin) & (all_shared == above), at, most), 0)
    tl.store(nodes.first_row + node, first_row)
    tl.store(nodes.parent + node, tl.where(above > 0, parent, -1))
    tl.store(nodes.start + node, tl.maximum(above, 0) * PAGE_SIZE)
    tl.store(nodes.stop + node, stop)


@triton.jit
def _is_folded(
    num_tokens,
    num_queries,
    num_children,
    rates,
    partial_seconds,
    fixed_seconds,
    MAX_QUERIES: tl.constexpr,
):
    """Whether reading a node again with each child costs less than a tile and partials of its own.

    The children's tiles read it `num_children` times instead of once a tile.
    """
    num_tiles = tl.cdiv(num_queries, MAX_QUERIES)
    kept = num_tiles * tl.load(rates + tl.cdiv(num_queries, num_tiles))
    apart = num_children * tl.load(rates + 1)
    gain = num_tiles * fixed_seconds + num_queries * partial_seconds
    return num_tokens * (tl.maximum(apart, kept) - kept) <= gain
