"""What the planner's kernels take, in groups: each is one argument and keeps its names there."""

from __future__ import annotations

from typing import Any, NamedTuple


class PageTable(NamedTuple):
    """Pages of each request, [num_rows, max_pages], the last axis contiguous."""

    ptr: Any
    stride_row: Any


class Nodes(NamedTuple):
    """Arrays [2 * rows] of nodes: where they lie in the ordered rows, and how they are divided.

    A node is what neighbouring rows share and none beside them: `num_rows` rows from `first_row`
    on, the tokens from `start` to `stop`. The first half are those of several rows, by the place
    where they part first; the second half is what each row has alone. `num_queries` is 0 where a
    node has no tiles: it is empty, or folded into those below it, which then start above it.
    """

    first_row: Any
    num_rows: Any
    parent: Any
    start: Any
    stop: Any
    has_children: Any
    is_folded: Any
    num_queries: Any
    block_size: Any
    num_pieces: Any
    tile_tokens: Any
    num_tiles: Any
    num_partials: Any
    first_tile: Any
    first_partial: Any
    tile_seconds: Any


class Tables(NamedTuple):
    """The tables of `bough.plan.tables.PlanTables` that updates write, the ordered rows apart."""

    num_items: Any
    tile_query_begin: Any
    tile_num_queries: Any
    tile_partial_start: Any
    segment_page_start: Any
    segment_first_slot: Any
    segment_position: Any
    segment_len: Any
    query_num_tiles: Any
    query_position: Any
    merge_indptr: Any
    merge_indices: Any
