"""Which part of which node each tile reads."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from bough.forest import Forest
from bough.plan.fold import Tasks
from bough.tree_order import Index, argsort_small


class Segments(NamedTuple):
    """Parts of nodes, by tile, root first.

    Attributes:
        num: [num_tiles] segments of each tile.
        node: [num_segments] node of each segment.
        begin: [num_segments] its first token, counted in the node.
        stop: [num_segments] one past its last token, counted in the node.
    """

    num: Index
    node: Index
    begin: Index
    stop: Index


def find_segments(
    forest: Forest, tasks: Tasks, tile_task: Index, start: Index, stop: Index
) -> Segments:
    """Intersect each tile's positions with the nodes of its task's chain.

    Args:
        forest: the forest.
        tasks: the tasks.
        tile_task: [num_tiles] task of each tile.
        start: [num_tiles] first position of each tile.
        stop: [num_tiles] one past its last position.
    """
    tile, node = np.arange(len(tile_task)), tasks.node[tile_task]
    has_chain = forest.node_start[tasks.node] > tasks.start
    if has_chain.any():
        num_links, link_node = _chains(forest, tasks, has_chain)
        first_link = (num_links.cumsum() - num_links)[tile_task]
        num_links = num_links[tile_task]
        tile = tile.repeat(num_links)
        shift = first_link - num_links.cumsum() + num_links
        node = link_node[np.arange(len(tile)) + shift.repeat(num_links)]
    origin = forest.node_start[node]
    begin = np.maximum(start[tile] - origin, 0)
    end = np.minimum(stop[tile] - origin, forest.node_len[node])
    is_met = end > begin
    if is_met.all() and len(tile) == len(tile_task):
        return Segments(np.ones_like(tile), node, begin, end)
    num = np.bincount(tile[is_met], minlength=len(tile_task))
    return Segments(num, node[is_met], begin[is_met], end[is_met])


def _chains(forest: Forest, tasks: Tasks, has_chain: npt.NDArray[np.bool_]) -> tuple[Index, Index]:
    """List the nodes of every task's chain, root first, after counting them by task."""
    node, task = tasks.node, np.arange(len(tasks.node))
    tasks_above, nodes_above = [task], [node]
    above = has_chain.nonzero()[0]
    while len(above):
        task, node = task[above], forest.node_parent[node[above]].astype(np.intp)
        tasks_above.append(task)
        nodes_above.append(node)
        above = (forest.node_start[node] > tasks.start[task]).nonzero()[0]
    link_task = np.concatenate(tasks_above[::-1])
    link_node = np.concatenate(nodes_above[::-1])
    num_links = np.bincount(link_task, minlength=len(tasks.node))
    return num_links, link_node[argsort_small(link_task, len(tasks.node))]
