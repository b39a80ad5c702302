"""What a plan does with each node of its forest, as both pictures of it show."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bough.plan import Plan

# By depth; shades tell neighbouring tiles apart.
HUES = ("#2f7d4f", "#b9771f", "#4a6fa5", "#a8495c", "#6b4f91", "#2b8a8a", "#8a6d3b")


@dataclass(frozen=True, kw_only=True, eq=False)
class NodeFacts:
    """One entry a node.

    Args:
        depth: 0 for a root.
        num_tokens: KV tokens.
        num_queries: queries that see the node.
        num_tiles: tiles, per head split, whose lowest node this is.
        least_tokens: KV tokens of the smallest of them, folded nodes above included.
        most_tokens: of the largest of them.
        num_read: KV tokens that all tiles read in this node.
        is_folded: whether only tiles of the nodes below read it.
        kind: nodes of one kind look the same, the subtrees below them included.
    """

    depth: npt.NDArray[np.int32]
    num_tokens: npt.NDArray[np.int32]
    num_queries: npt.NDArray[np.int32]
    num_tiles: npt.NDArray[np.int64]
    least_tokens: npt.NDArray[np.int64]
    most_tokens: npt.NDArray[np.int64]
    num_read: npt.NDArray[np.int64]
    is_folded: npt.NDArray[np.bool_]
    kind: list[int]


def node_facts(plan: Plan) -> NodeFacts:
    """Sum a plan's tiles and segments up by node."""
    forest, schedule = plan.forest, plan.schedule
    _, begin, end = forest.subtree
    length = (schedule.segment_stop - schedule.segment_begin).astype(np.int64)
    num_read = np.bincount(schedule.segment_node, length, forest.num_nodes).astype(np.int64)
    lowest = lowest_nodes(plan)
    num_tiles = np.bincount(lowest, minlength=forest.num_nodes)
    tokens = np.add.reduceat(length, schedule.tile_segment_indptr[:-1]) if len(lowest) else length
    least = np.full(forest.num_nodes, np.iinfo(np.int64).max)
    most = np.zeros(forest.num_nodes, dtype=np.int64)
    np.minimum.at(least, lowest, tokens)
    np.maximum.at(most, lowest, tokens)
    is_folded = (num_tiles == 0) & (num_read > 0)
    columns = [forest.node_len, end - begin, num_tiles, np.minimum(least, most), most, num_read]
    return NodeFacts(
        depth=forest.node_depth,
        num_tokens=forest.node_len,
        num_queries=end - begin,
        num_tiles=num_tiles,
        least_tokens=np.minimum(least, most),
        most_tokens=most,
        num_read=num_read,
        is_folded=is_folded,
        kind=_kinds(plan, np.stack(columns, axis=1)),
    )


def lowest_nodes(plan: Plan) -> npt.NDArray[np.intp]:
    """[num_tiles] the node that each tile reaches down to."""
    return plan.schedule.segment_node[plan.schedule.tile_segment_indptr[1:] - 1]


def children_of(plan: Plan) -> dict[int, list[int]]:
    """List the children of every node, the roots under -1."""
    children: dict[int, list[int]] = {-1: []}
    for node, above in enumerate(plan.forest.node_parent.tolist()):
        children.setdefault(above, []).append(node)
    return children


def _kinds(plan: Plan, columns: npt.NDArray[np.int64]) -> list[int]:
    """Number the different (figures, kinds of children), from the leaves up."""
    children = children_of(plan)
    numbers: dict[tuple[object, ...], int] = {}
    kind = [0] * len(columns)
    for level in reversed(plan.forest.levels):
        for node in level.tolist():
            below = tuple(sorted(kind[child] for child in children.get(node, ())))
            kind[node] = numbers.setdefault((*columns[node].tolist(), below), len(numbers))
    return kind
