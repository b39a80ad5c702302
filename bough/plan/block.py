"""Tasks cut to the height of a tile: blocks of queries with the positions that they see."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bough.forest import Forest, IntArray
from bough.plan.cost import CostModel
from bough.plan.fold import Tasks


@dataclass(frozen=True, kw_only=True)
class Blocks:
    """Queries that share tiles, ordered by position within each task.

    Args:
        task: [num_blocks] task of each block.
        query_begin: [num_blocks] where its queries start in `query`.
        num_queries: [num_blocks] how many they are.
        start: [num_blocks] first position that any of them sees.
        stop: [num_blocks] one past the last position that any of them sees.
        query: [num_pairs] queries of all blocks.
    """

    task: IntArray
    query_begin: IntArray
    num_queries: IntArray
    start: npt.NDArray[np.int64]
    stop: npt.NDArray[np.int64]
    query: IntArray

    @property
    def num_tokens(self) -> npt.NDArray[np.int64]:
        """[num_blocks] KV tokens that each block visits."""
        return self.stop - self.start


def cut_to_blocks(forest: Forest, tasks: Tasks, cost: CostModel) -> Blocks:
    """Sort each task's queries by position and cut them into blocks of one tile's rows.

    Neighbours by position see nearly the same tokens, so a causal block ends early, and inside a
    window a block is cut where its queries' windows leave a gap: what a block visits is always
    one run of positions, each seen by one of its queries.
    """
    window = cost.spec.window
    task_stop = (forest.node_start + forest.node_visible_len)[tasks.node]
    task, query = tasks.query_task, tasks.query
    if window is not None:
        is_near = forest.query_position[query] - window + 1 < task_stop[task]
        task, query = task[is_near], query[is_near]
    position = forest.query_position[query]
    order = np.lexsort((position, task))
    task, query, position = task[order], query[order], position[order]

    is_first = np.ones(len(task), dtype=np.bool_)
    is_first[1:] = task[1:] != task[:-1]
    if window is not None:
        is_first[1:] |= position[1:] - position[:-1] > window
    is_first = _cut_evenly(is_first, cost.max_tile_queries)
    first = np.flatnonzero(is_first).astype(np.int32)
    count = np.diff(np.append(first, len(task))).astype(np.int32)
    block_task = task[first]
    start = tasks.start[block_task].astype(np.int64)
    if window is not None:
        start = np.maximum(start, position[first] - window + 1)
    stop = np.minimum(task_stop[block_task], position[first + count - 1] + 1)
    return Blocks(
        task=block_task,
        query_begin=first,
        num_queries=count,
        start=start,
        stop=stop,
        query=query,
    )


def _cut_evenly(is_first: npt.NDArray[np.bool_], most: int) -> npt.NDArray[np.bool_]:
    """Cut runs longer than `most` into the fewest runs of nearly equal length."""
    first = np.flatnonzero(is_first)
    count = np.diff(np.append(first, len(is_first)))
    if count.max(initial=0) <= most:
        return is_first
    size = -(-count // -(-count // most))
    run = np.cumsum(is_first) - 1
    return (np.arange(len(is_first)) - first[run]) % size[run] == 0
