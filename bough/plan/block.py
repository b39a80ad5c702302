"""Tasks cut to the height of a tile: blocks of queries with the positions that they see."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bough.forest import Forest
from bough.plan.cost import CostModel
from bough.plan.fold import Tasks
from bough.tree_order import Index


@dataclass(frozen=True, kw_only=True)
class Blocks:
    """Queries that share tiles; of a block, the last sees as far into the task as any other.

    Args:
        task: [num_blocks] task of each block.
        query_begin: [num_blocks] where its queries start in `query`.
        num_queries: [num_blocks] how many they are.
        start: [num_blocks] first position that any of them sees.
        stop: [num_blocks] one past the last position that any of them sees.
        query: [num_pairs] queries of all blocks.
    """

    task: Index
    query_begin: Index
    num_queries: Index
    start: Index
    stop: Index
    query: Index

    @property
    def num_tokens(self) -> Index:
        """[num_blocks] KV tokens that each block visits."""
        return self.stop - self.start


def cut_to_blocks(forest: Forest, tasks: Tasks, cost: CostModel) -> Blocks:
    """Sort each task's queries by position and cut them into blocks of one tile's rows.

    Neighbours by position see nearly the same tokens, so a causal block ends early, and inside a
    window a block is cut where its queries' windows leave a gap: what a block visits is always
    one run of positions, each seen by one of its queries. Queries that all see a task to its end
    keep their order where there is no window.
    """
    window = cost.spec.window
    task, query = tasks.query_task, tasks.query
    position = forest.query_position[query].astype(np.intp)
    if window is None:
        position = np.minimum(position, tasks.stop[task] - 1)
    else:
        is_near = (position - window + 1 < tasks.stop[task]).nonzero()[0]
        task, query, position = task[is_near], query[is_near], position[is_near]
    task, query, position = _by_position(task, query, position)
    is_first = np.ones(len(task), dtype=np.bool_)
    is_first[1:] = task[1:] != task[:-1]
    if window is not None:
        is_first[1:] |= position[1:] - position[:-1] > window
    first, count = _runs(is_first, cost)
    block_task = task[first]
    start = tasks.start[block_task]
    if window is not None:
        start = np.maximum(start, position[first] - window + 1)
    return Blocks(
        task=block_task,
        query_begin=first,
        num_queries=count,
        start=start,
        stop=np.minimum(tasks.stop[block_task], position[first + count - 1] + 1),
        query=query,
    )


def _by_position(task: Index, query: Index, position: Index) -> tuple[Index, Index, Index]:
    """Sort by task, then position; most are in order already."""
    key = task * (int(position.max(initial=0)) + 1) + position
    if (key[1:] >= key[:-1]).all():
        return task, query, position
    order = key.argsort(kind="stable")
    return task[order], query[order], position[order]


def _runs(is_first: npt.NDArray[np.bool_], cost: CostModel) -> tuple[Index, Index]:
    """Cut runs longer than a tile into the fewest runs of nearly equal length.

    Returns:
        where each run begins, and its length.
    """
    first = is_first.nonzero()[0]
    count = _lengths(first, len(is_first))
    most = cost.tile_queries(count)
    if (count <= most).all():
        return first, count
    num_runs = -(-count // most)
    size = (-(-count // num_runs)).repeat(num_runs)
    before = (num_runs.cumsum() - num_runs).repeat(num_runs)
    first = first.repeat(num_runs) + (np.arange(len(size)) - before) * size
    return first, _lengths(first, len(is_first))


def _lengths(first: Index, stop: int) -> Index:
    length = np.empty_like(first)
    np.subtract(first[1:], first[:-1], out=length[:-1])
    length[-1:] = stop - first[-1:]
    return length
