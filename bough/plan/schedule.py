"""The schedule: tiles, their segments and queries, their workers, and the merge lists."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bough.forest import Forest, IntArray
from bough.plan.block import Blocks, cut_to_blocks
from bough.plan.cost import CostModel
from bough.plan.divide import Division, divide
from bough.plan.fold import Tasks, fold


@dataclass(frozen=True, kw_only=True, eq=False)
class Schedule:
    """What runs where; pure arrays, the same whatever machine computes them.

    A tile is a list of node segments along one path x some queries x one split of the stored
    heads; all splits share the tables, and item `tile * num_head_splits + split` names one of
    them. A query in one tile has its output written there; a query in more leaves a partial for
    each, row `i` of tile `t` in partial `tile_partial_start[t] + i`.

    Args:
        tile_segment_indptr: [num_tiles + 1] segments of each tile.
        segment_node: [num_segments] node of each segment.
        segment_begin: [num_segments] its first token, counted in the node.
        segment_stop: [num_segments] one past its last token, counted in the node.
        tile_query_begin: [num_tiles] where its queries start in `query_indices`.
        tile_num_queries: [num_tiles] how many they are.
        query_indices: queries of the tiles, ascending by position within a tile.
        tile_partial_start: [num_tiles] first partial, -1 where every query has this tile only.
        merge_indptr: [num_queries + 1] partials of each query; none where it has one tile or none.
        merge_indices: partials in the order in which they are merged.
        query_num_tiles: [num_queries] tiles of each query.
        items: [num_tiles * num_head_splits] all items by falling cost.
        worker_indptr: [num_workers + 1] items of each worker.
        worker_items: items in the order in which they run.
        tile_seconds: [num_tiles] expected cost of each tile on one head split.
        num_head_splits: tiles that share one row of the tables.
        num_partials: partials in all.
        makespan: expected seconds until the last worker has run its tiles.
        seconds: expected seconds of the step, merging included.
        lower_bound: makespan that no division of the same work can beat.
    """

    tile_segment_indptr: IntArray
    segment_node: IntArray
    segment_begin: IntArray
    segment_stop: IntArray
    tile_query_begin: IntArray
    tile_num_queries: IntArray
    query_indices: IntArray
    tile_partial_start: IntArray
    merge_indptr: IntArray
    merge_indices: IntArray
    query_num_tiles: IntArray
    items: IntArray
    worker_indptr: IntArray
    worker_items: IntArray
    tile_seconds: npt.NDArray[np.float64]
    num_head_splits: int
    num_partials: int
    makespan: float
    seconds: float
    lower_bound: float

    @property
    def num_tiles(self) -> int:
        return len(self.tile_query_begin)

    @property
    def num_segments(self) -> int:
        return len(self.segment_node)

    @property
    def num_tokens_read(self) -> int:
        """KV tokens that the tiles visit, each counted once per tile."""
        return int((self.segment_stop - self.segment_begin).sum(dtype=np.int64))


def make_schedule(forest: Forest, cost: CostModel) -> Schedule:
    """Fold, cut, divide and assign; pure, and costs no more than a few milliseconds."""
    tasks = fold(forest, cost)
    blocks = cut_to_blocks(forest, tasks, cost)
    division = divide(blocks, forest.num_queries, cost)
    return _lay_out(forest, tasks, blocks, division, cost)


def _lay_out(
    forest: Forest, tasks: Tasks, blocks: Blocks, division: Division, cost: CostModel
) -> Schedule:
    num_tiles = division.num_tiles
    tile_block = np.repeat(np.arange(len(num_tiles)), num_tiles)
    first_tile = np.cumsum(num_tiles) - num_tiles
    within = np.arange(len(tile_block)) - first_tile[tile_block]
    tile_tokens = division.tile_tokens[tile_block]
    start = (blocks.start[tile_block] + within * tile_tokens).astype(np.int64)
    stop = np.minimum(start + tile_tokens, blocks.stop[tile_block])
    indptr, node, begin, end = _segments(forest, tasks, blocks.task[tile_block], start, stop)
    rate = cost.rate(blocks.num_queries)[tile_block] / cost.num_head_splits
    partials = _partials(forest.num_queries, blocks, first_tile, num_tiles)
    worker, item, _ = division.assignment
    by_worker = np.argsort(worker, kind="stable")
    return Schedule(
        tile_segment_indptr=indptr,
        segment_node=node,
        segment_begin=begin,
        segment_stop=end,
        tile_query_begin=blocks.query_begin[tile_block],
        tile_num_queries=blocks.num_queries[tile_block],
        query_indices=blocks.query,
        tile_partial_start=partials.tile_start,
        merge_indptr=partials.merge_indptr,
        merge_indices=partials.merge_indices,
        query_num_tiles=partials.query_num_tiles,
        items=item.astype(np.int32),
        worker_indptr=_indptr(np.bincount(worker, minlength=cost.device.num_workers)),
        worker_items=item[by_worker].astype(np.int32),
        tile_seconds=cost.device.tile_seconds + rate * (stop - start),
        num_head_splits=cost.num_head_splits,
        num_partials=partials.count,
        makespan=division.assignment.makespan,
        seconds=division.seconds,
        lower_bound=division.lower_bound,
    )


def _segments(
    forest: Forest,
    tasks: Tasks,
    tile_task: IntArray,
    start: npt.NDArray[np.int64],
    stop: npt.NDArray[np.int64],
) -> tuple[IntArray, IntArray, IntArray, IntArray]:
    """Intersect each tile's positions with the nodes of its task's chain, root first."""
    link_task, link_node = _chains(forest, tasks)
    links = np.bincount(link_task, minlength=len(tasks.node))
    first_link = np.cumsum(links) - links
    num_links = links[tile_task]
    tile = np.repeat(np.arange(len(tile_task)), num_links)
    before = np.cumsum(num_links) - num_links
    node = link_node[np.arange(len(tile)) - before[tile] + first_link[tile_task[tile]]]
    origin = forest.node_start[node]
    length = forest.node_len[node]
    begin = np.clip(start[tile] - origin, 0, length)
    end = np.clip(stop[tile] - origin, 0, length)
    is_met = end > begin
    counts = np.bincount(tile[is_met], minlength=len(tile_task))
    return (
        _indptr(counts),
        node[is_met].astype(np.int32),
        begin[is_met].astype(np.int32),
        end[is_met].astype(np.int32),
    )


def _chains(forest: Forest, tasks: Tasks) -> tuple[npt.NDArray[np.intp], IntArray]:
    """List (task, node) for the nodes of every task's chain, root first."""
    task = np.arange(len(tasks.node))
    node = tasks.node
    links: list[tuple[npt.NDArray[np.intp], IntArray]] = []
    while len(task):
        links.append((task, node))
        goes_up = forest.node_start[node] > tasks.start[task]
        task, node = task[goes_up], forest.node_parent[node[goes_up]]
    if len(links) == 1:
        return links[0]
    link_task = np.concatenate([at for at, _ in reversed(links)] or [task])
    link_node = np.concatenate([node for _, node in reversed(links)] or [node])
    order = np.argsort(link_task, kind="stable")
    return link_task[order], link_node[order]


@dataclass(frozen=True, kw_only=True)
class _Partials:
    count: int
    tile_start: IntArray
    query_num_tiles: IntArray
    merge_indptr: IntArray
    merge_indices: IntArray


def _partials(
    num_queries: int,
    blocks: Blocks,
    first_tile: npt.NDArray[np.int64],
    num_tiles: npt.NDArray[np.int64],
) -> _Partials:
    """Number the partials by tile, and list each query's in the order of its tiles."""
    pair_block = np.repeat(np.arange(len(num_tiles)), blocks.num_queries)
    pair_tiles = num_tiles[pair_block]
    of_query = np.bincount(blocks.query, pair_tiles, minlength=num_queries).astype(np.int32)
    is_merged = (of_query > 1)[blocks.query]
    block_merges = np.bincount(pair_block[is_merged], minlength=len(num_tiles)) > 0

    tile_block = np.repeat(np.arange(len(num_tiles)), num_tiles)
    tile_size = np.where(block_merges[tile_block], blocks.num_queries[tile_block], 0)
    tile_start = np.cumsum(tile_size) - tile_size

    pair = np.repeat(np.flatnonzero(is_merged), pair_tiles[is_merged])
    counts = pair_tiles[is_merged]
    within = np.arange(len(pair)) - np.repeat(np.cumsum(counts) - counts, counts)
    partial = tile_start[first_tile[pair_block[pair]] + within]
    partial = partial + pair - blocks.query_begin[pair_block[pair]]
    order = np.lexsort((partial, blocks.query[pair]))
    return _Partials(
        count=int(tile_size.sum()),
        tile_start=np.where(tile_size > 0, tile_start, -1).astype(np.int32),
        query_num_tiles=of_query,
        merge_indptr=_indptr(np.where(of_query > 1, of_query, 0)),
        merge_indices=partial[order].astype(np.int32),
    )


def open_segments(
    forest: Forest, schedule: Schedule, max_tile_queries: int
) -> npt.NDArray[np.intp]:
    """Segments that may grow with their node: its tail, where one request alone ends there.

    Its queries must fit one tile, so that all of them stand at the tail.
    """
    first_query = forest.query_indptr[:-1][np.diff(forest.query_indptr) > 0]
    ends = forest.query_node[first_query]
    requests = np.bincount(ends[ends >= 0], minlength=forest.num_nodes)
    _, begin, end = forest.subtree
    is_open = (requests == 1) & (end - begin == forest.node_num_queries)
    is_open &= forest.node_num_queries <= max_tile_queries
    is_tail = schedule.segment_stop == forest.node_visible_len[schedule.segment_node]
    is_whole = forest.node_len == forest.node_visible_len
    return np.flatnonzero(is_tail & (is_open & is_whole)[schedule.segment_node])


def _indptr(counts: npt.NDArray[np.integer]) -> IntArray:
    indptr = np.zeros(len(counts) + 1, dtype=np.int32)
    np.cumsum(counts, out=indptr[1:])
    return indptr
