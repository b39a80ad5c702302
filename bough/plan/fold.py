"""Which nodes get tiles of their own, and which are read again with each of their children."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bough.forest import Forest
from bough.plan.cost import CostModel
from bough.tree_order import Index, is_same

Seconds = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Tasks:
    """Work by task: a chain of nodes along one path, and the queries that see all of it.

    Args:
        node: [num_tasks] lowest node of each task.
        start: [num_tasks] position at which the chain starts.
        stop: [num_tasks] one past the last position that any of its queries sees.
        query_task: [num_pairs] task of each (task, query) pair, ascending.
        query: [num_pairs] query of each pair.
    """

    node: Index
    start: Index
    stop: Index
    query_task: Index
    query: Index


def fold(forest: Forest, cost: CostModel) -> Tasks:
    """Choose the cheaper of folding where it pays and of sharing nothing at all.

    A node that is folded gets no tile: each child's tile reads it too, which spares every query
    below a partial. Greedy from the roots down, node by node:

        keep = C(queries below, above + own) + P(queries below) + sum C(child's queries, child)
        fold = sum C(child's queries, above + own + child) + C(queries ending here, above + own)

    where `above` is what was folded into the node already. All read at an even share of the
    bandwidth: how much more a tile gets beside others depends on all of them, while a byte that is
    read again costs the memory the same. Reading everything apart is the
    choice that folds every node, so sharing is never predicted to cost more than not sharing.
    """
    _, begin, end = forest.subtree
    own, below = forest.node_num_queries, end - begin
    length = forest.node_visible_len
    inner = (below > own).nonzero()[0]
    if not len(inner):
        return _tasks(forest, below, forest.node_start)
    # Cost of tiles for all queries below a node, and for those that end in it alone.
    fixed, per_token = cost.line(np.concatenate((below, own[inner])))
    own_fixed, own_per_token = fixed[len(below) :], per_token[len(below) :]
    fixed, per_token = fixed[: len(below)], per_token[: len(below)]
    of_children = np.bincount(forest.node_parent + 1, per_token, forest.num_nodes + 1)[1:]
    is_folded, above = _fold_where_it_pays(
        forest,
        inner,
        fixed[inner] + cost.partials(below[inner] - own[inner]) - own_fixed,
        of_children[inner] - per_token[inner] + own_per_token,
    )
    num_queries, start = below.copy(), forest.node_start - above[forest.node_parent]
    folded = inner[is_folded]
    num_queries[folded] = own[folded]
    tasks = _tasks(forest, num_queries, start)
    stop = forest.node_start + length
    fixed[folded], per_token[folded] = own_fixed[is_folded], own_per_token[is_folded]
    seconds = float((fixed + per_token * (stop - start)).sum()) + _merging(tasks, cost)
    return read_apart(forest) if seconds_apart(forest, cost) < seconds else tasks


def read_apart(forest: Forest) -> Tasks:
    """Fold every node: each query has one task, from position 0 on."""
    return _tasks(forest, forest.node_num_queries, np.zeros_like(forest.node_start))


def seconds_apart(forest: Forest, cost: CostModel) -> float:
    """Worker-seconds of the tasks of `read_apart`."""
    _, begin, end = forest.subtree
    own = forest.node_num_queries
    stop = forest.node_start + forest.node_visible_len
    if ((own > 0) & (end - begin > own)).any():
        # Queries that end in an inner node may see less of it than those below.
        seen = np.zeros(forest.num_nodes + 1, dtype=np.intp)
        np.maximum.at(seen, forest.query_node, forest.query_position + 1)
        stop = np.minimum(seen[:-1], stop)
    return float(cost.tiles(own, stop).sum())


def share_read_again(forest: Forest) -> float:
    """Of the tokens that the tasks of `read_apart` read, the share that several of them read."""
    _, begin, end = forest.subtree
    tokens = forest.node_visible_len * (end - begin)
    return float(tokens[end - begin > 1].sum() / max(1, tokens.sum()))


def _fold_where_it_pays(
    forest: Forest, inner: Index, gain: Seconds, loss_per_token: Seconds
) -> tuple[npt.NDArray[np.bool_], Index]:
    """Fold nodes whose tokens, with those folded into them, cost the children less than is gained.

    Args:
        forest: the forest.
        inner: [n] nodes with queries below them.
        gain: [n] what folding spares, however long the node is.
        loss_per_token: [n] what it costs per token, those of folded nodes above included.

    Returns:
        is_folded [n]; above [num_nodes + 1], tokens that each node hands down to its children,
        the last entry for no node.
    """
    place = np.full(forest.num_nodes + 1, len(inner), dtype=np.intp)
    place[inner] = np.arange(len(inner))
    parent = place[forest.node_parent[inner]]
    length = forest.node_len[inner]
    handed_down = np.zeros(len(inner) + 1)
    # Each round settles the nodes below those that are settled; most are from the start.
    while True:
        reach = length + handed_down[parent]
        is_folded = loss_per_token * reach <= gain
        found = reach * is_folded
        if is_same(found, handed_down[:-1]):
            break
        handed_down[:-1] = found
    above = np.zeros(forest.num_nodes + 1, dtype=np.intp)
    above[inner] = found
    return is_folded, above


def _tasks(forest: Forest, num_queries: Index, start: npt.NDArray[np.integer]) -> Tasks:
    """List the first `num_queries` queries of each node's subtree as a task from `start` on."""
    order, begin, _ = forest.subtree
    node = num_queries.nonzero()[0]
    count = num_queries[node]
    ends = count.cumsum()
    query_task = np.arange(len(node)).repeat(count)
    at = np.arange(len(query_task)) + (begin[node] - ends + count).repeat(count)
    stop = forest.node_start[node] + forest.node_visible_len[node]
    return Tasks(
        node=node,
        start=start[node].astype(np.intp),
        stop=stop.astype(np.intp),
        query_task=query_task,
        query=order[at],
    )


def _merging(tasks: Tasks, cost: CostModel) -> float:
    """Worker-seconds of the partials that undivided tasks leave, and of their merge."""
    num_tasks = np.bincount(tasks.query)
    num_partials = num_tasks[num_tasks > 1].sum()
    return float(cost.partials(num_partials) + cost.merge * bool(num_partials))
