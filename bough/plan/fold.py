"""Which nodes get tiles of their own, and which are read again with each of their children."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bough.forest import Forest, IntArray
from bough.plan.cost import CostModel


@dataclass(frozen=True, kw_only=True)
class Tasks:
    """Work by task: a chain of nodes along one path, and the queries that see all of it.

    Args:
        node: [num_tasks] lowest node of each task.
        start: [num_tasks] position at which the chain starts.
        query_task: [num_pairs] task of each (task, query) pair, ascending.
        query: [num_pairs] query of each pair.
    """

    node: IntArray
    start: IntArray
    query_task: IntArray
    query: IntArray


def fold(forest: Forest, cost: CostModel) -> Tasks:
    """Choose the cheaper of folding where it pays and of sharing nothing at all.

    A node that is folded gets no tile: each child's tile reads it too, which spares every query
    below a partial. Greedy from the roots down, node by node:

        keep = C(queries below, above + own) + P(queries below) + sum C(child's queries, child)
        fold = sum C(child's queries, above + own + child) + C(queries ending here, above + own)

    where `above` is what was folded into the node already. Reading everything apart is the
    choice that folds every node, so sharing is never predicted to cost more than not sharing.
    """
    is_folded = _fold_where_it_pays(forest, cost)
    tasks = _tasks(forest, is_folded)
    if not is_folded.all() and _seconds_apart(forest, cost) < _seconds(forest, cost, tasks):
        return _tasks(forest, np.ones_like(is_folded))
    return tasks


def _fold_where_it_pays(forest: Forest, cost: CostModel) -> npt.NDArray[np.bool_]:
    _, begin, end = forest.subtree
    below = (end - begin).astype(np.int64)
    own = forest.node_num_queries.astype(np.int64)
    length = forest.node_visible_len
    parent = forest.node_parent
    above = np.zeros(forest.num_nodes, dtype=np.int64)
    is_folded = np.zeros(forest.num_nodes, dtype=np.bool_)
    fixed, per_token = cost.line(below)
    own_fixed, own_per_token = cost.line(own)
    alone = fixed + per_token * length
    has_parent = parent >= 0
    children_alone = _sum_to_parents(parent[has_parent], alone[has_parent], forest.num_nodes)
    # What keeping costs, less what folding costs beside the children's longer tiles.
    spared = fixed + cost.partials(below - own) + children_alone - own_fixed
    spared_per_token = per_token - own_per_token

    for depth, level in enumerate(forest.levels[:-1]):
        level = level[below[level] > own[level]]
        children = forest.levels[depth + 1]
        parents = parent[children]
        reach = above[level] + length[level]
        above[level] = reach
        with_above = alone[children] + per_token[children] * above[parents]
        together = _sum_to_parents(parents, with_above, forest.num_nodes)
        is_folded[level] = together[level] <= spared[level] + spared_per_token[level] * reach
        above[level] = np.where(is_folded[level], reach, 0)
        above[children] = above[parents]
    return is_folded


def _sum_to_parents(
    parent: IntArray, values: npt.NDArray[np.float64], num_nodes: int
) -> npt.NDArray[np.float64]:
    return np.bincount(parent, values, minlength=num_nodes).astype(np.float64, copy=False)


def _tasks(forest: Forest, is_folded: npt.NDArray[np.bool_]) -> Tasks:
    order, begin, end = forest.subtree
    own = forest.node_num_queries
    # A kept node serves all queries below it, a folded one only those that end in it.
    is_inner = end - begin > own
    count = np.where(is_folded & is_inner, own, end - begin)
    node = np.flatnonzero(count).astype(np.int32)
    start = forest.node_start.copy()
    for level in forest.levels[1:]:
        above = forest.node_parent[level]
        joins = (is_folded & is_inner)[above]
        start[level] = np.where(joins, start[above], start[level])
    counts = count[node]
    query_task = np.repeat(np.arange(len(node), dtype=np.int32), counts)
    first = np.cumsum(counts) - counts
    at = np.arange(len(query_task)) - first[query_task] + begin[node][query_task]
    return Tasks(node=node, start=start[node], query_task=query_task, query=order[at])


def _seconds(forest: Forest, cost: CostModel, tasks: Tasks) -> float:
    """Worker-seconds of all tasks, undivided, with the partials they leave."""
    num_queries = np.bincount(tasks.query_task, minlength=len(tasks.node))
    stop = (forest.node_start + forest.node_visible_len)[tasks.node]
    tiles = cost.tiles(num_queries, stop - tasks.start)
    num_tasks = np.bincount(tasks.query, minlength=forest.num_queries)
    num_partials = num_tasks[num_tasks > 1].sum()
    return float(tiles.sum() + cost.partials(num_partials) + cost.merge * bool(num_partials))


def _seconds_apart(forest: Forest, cost: CostModel) -> float:
    """Worker-seconds where the queries of each node read the whole path; no partials."""
    node = np.flatnonzero(forest.node_num_queries)
    stop = (forest.node_start + forest.node_visible_len)[node]
    return float(cost.tiles(forest.node_num_queries[node].astype(np.int64), stop).sum())
