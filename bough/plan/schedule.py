"""The schedule: tiles, their segments and queries, their order, and the merge lists."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from bough.forest import Forest
from bough.plan.assign import Assignment, assign
from bough.plan.block import Blocks, cut_to_blocks
from bough.plan.cost import CostModel
from bough.plan.divide import FEW_ITEMS, Division, divide, merge_seconds
from bough.plan.fold import Tasks, fold, read_apart, seconds_apart, share_read_again
from bough.plan.items import list_items
from bough.plan.partials import number_partials
from bough.plan.segments import find_segments
from bough.tree_order import Index

Seconds = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Schedule:
    """What runs where; pure arrays, the same whatever machine computes them.

    A tile is a list of node segments along one path x some queries; item `tile * num_head_splits +
    split` is the tile on `tile_num_heads[tile]` splits of the stored heads from that one on. Tiles
    are taken in the order of `items` by whichever worker is free. A query in one tile has its
    output written there; a query in more leaves a partial for each, row `i` of tile `t` in partial
    `tile_partial_start[t] + i`.

    Args:
        tile_segment_indptr: [num_tiles + 1] segments of each tile.
        segment_node: [num_segments] node of each segment.
        segment_begin: [num_segments] its first token, counted in the node.
        segment_stop: [num_segments] one past its last token, counted in the node.
        tile_query_begin: [num_tiles] where its queries start in `query_indices`.
        tile_num_queries: [num_tiles] how many they are.
        query_indices: queries of the tiles; of a tile, the last sees as far into it as any other.
        tile_partial_start: [num_tiles] first partial, -1 where every query has this tile only.
        merge_indptr: [num_queries + 1] partials of each query; none where it has one tile or none.
        merge_indices: partials in the order in which they are merged.
        query_num_tiles: [num_queries] tiles of each query.
        tile_num_heads: [num_tiles] head splits that an item of each tile covers.
        items: [num_items] all items in the order in which they are taken.
        item_seconds: [num_items] expected cost of each item.
        tile_seconds: [num_tiles] expected cost of each tile on one head split.
        tile_reading: [num_tiles] seconds that an item of each tile reads memory at an even share of
            its bandwidth; None where no item reads faster.
        num_workers: workers that run side by side.
        num_head_splits: tiles that share one row of the tables.
        num_partials: partials in all.
        merge_seconds: expected seconds of merging.
        lower_bound: makespan that no division of the same work can beat.
    """

    tile_segment_indptr: Index
    segment_node: Index
    segment_begin: Index
    segment_stop: Index
    tile_query_begin: Index
    tile_num_queries: Index
    query_indices: Index
    tile_partial_start: Index
    merge_indptr: Index
    merge_indices: Index
    query_num_tiles: Index
    tile_num_heads: Index
    items: Index
    item_seconds: Seconds
    tile_seconds: Seconds
    tile_reading: Seconds | None
    num_workers: int
    num_head_splits: int
    num_partials: int
    merge_seconds: float
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

    @cached_property
    def assignment(self) -> Assignment:
        """Items dealt to workers by falling cost, each to whoever is free first."""
        return assign(self.item_seconds, self.num_workers, self.item_reading)

    @property
    def item_reading(self) -> Seconds | None:
        """[num_items] seconds as in `tile_reading`."""
        if self.tile_reading is None:
            return None
        return self.tile_reading[self.items // self.num_head_splits]

    @property
    def worker_indptr(self) -> Index:
        """[num_workers + 1] items of each worker."""
        return _indptr(np.bincount(self.assignment.worker, minlength=self.num_workers))

    @property
    def worker_items(self) -> Index:
        """[num_items] items by worker, in the order in which they run."""
        return self.items[self.assignment.worker.argsort(kind="stable")]

    @property
    def worker_seconds(self) -> Seconds:
        """[num_items] expected cost of each of `worker_items`."""
        return self.item_seconds[self.assignment.worker.argsort(kind="stable")]

    @property
    def makespan(self) -> float:
        """Expected seconds until the last worker has run its tiles."""
        return self.assignment.makespan

    @property
    def seconds(self) -> float:
        """Expected seconds of the step, merging included."""
        return self.makespan + self.merge_seconds


def make_schedule(forest: Forest, cost: CostModel) -> Schedule:
    """Fold, cut, divide and lay out; pure, and costs no more than a millisecond.

    Folding counts work alone. Where workers have few items each, sharing may need less of it and
    still end later, in longer tiles and a merge: then reading everything apart is laid out too.
    """
    tasks = fold(forest, cost)
    schedule = _schedule(forest, tasks, cost)
    is_shared = len(tasks.query) > len(forest.subtree[0])
    workers = cost.num_workers
    if workers == 1 or not is_shared or len(schedule.items) > FEW_ITEMS * workers:
        return schedule
    # Dealt as they stand, items end a longest one after their even share at the latest, even if
    # none reads faster than its share of the bandwidth.
    items, reading = schedule.item_seconds, schedule.item_reading
    if reading is not None:
        items = np.maximum(items, reading)
    latest = float(items.sum()) / workers + float(items.max()) + schedule.merge_seconds
    cached = 1.0
    if cost.again_factor < 1:
        cached -= share_read_again(forest) * (1 - cost.again_factor)
    earliest_apart = seconds_apart(forest, cost) / workers * cached
    if earliest_apart >= latest or earliest_apart >= schedule.seconds:
        return schedule
    apart = _schedule(forest, read_apart(forest), cost)
    return apart if apart.seconds * cached < schedule.seconds else schedule


def _schedule(forest: Forest, tasks: Tasks, cost: CostModel) -> Schedule:
    blocks = cut_to_blocks(forest, tasks, cost)
    division = divide(blocks, forest.num_queries, cost)
    return _lay_out(forest, tasks, blocks, division, cost)


def _lay_out(
    forest: Forest, tasks: Tasks, blocks: Blocks, division: Division, cost: CostModel
) -> Schedule:
    num_tiles = division.num_tiles
    block = np.arange(len(num_tiles)).repeat(num_tiles)
    within = np.arange(len(block)) - (num_tiles.cumsum() - num_tiles)[block]
    tokens = division.tile_tokens[block]
    start = blocks.start[block] + within * tokens
    stop = np.minimum(start + tokens, blocks.stop[block])
    segments = find_segments(forest, tasks, blocks.task[block], start, stop)
    partials = number_partials(forest.num_queries, blocks, num_tiles)
    num_queries = blocks.num_queries[block]
    work, splits = division.work, cost.num_head_splits
    item_seconds = cost.device.tile_seconds + work.rate[block] * (stop - start)
    num_heads = work.num_heads[block]
    is_computing = work.rate[block] > work.reading[block]
    items = list_items(num_heads, item_seconds, is_computing, splits, cost.num_workers)
    return Schedule(
        tile_segment_indptr=_indptr(segments.num),
        segment_node=segments.node,
        segment_begin=segments.begin,
        segment_stop=segments.stop,
        tile_query_begin=blocks.query_begin[block],
        tile_num_queries=num_queries,
        query_indices=blocks.query,
        tile_partial_start=partials.tile_start,
        merge_indptr=_indptr(partials.query_num_partials),
        merge_indices=partials.indices,
        query_num_tiles=partials.query_num_tiles,
        tile_num_heads=num_heads,
        items=items.item,
        item_seconds=items.seconds,
        tile_seconds=item_seconds / num_heads,
        tile_reading=work.reading[block] * (stop - start) if work.is_mixed else None,
        num_workers=cost.num_workers,
        num_head_splits=splits,
        num_partials=partials.num,
        merge_seconds=float(merge_seconds(len(partials.indices), cost)),
        lower_bound=division.lower_bound,
    )


def _indptr(counts: Index) -> Index:
    indptr = np.zeros(len(counts) + 1, dtype=np.intp)
    counts.cumsum(out=indptr[1:])
    return indptr
