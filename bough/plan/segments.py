"""Which part of which node each tile reads."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

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
    num_links, link_node = _chains(forest, tasks)
    num_links_of_tile = num_links[tile_task]
    first_link = (num_links.cumsum() - num_links)[tile_task]
    tile = np.arange(len(tile_task))
    link = first_link
    if len(link_node) > len(num_links):
        tile = tile.repeat(num_links_of_tile)
        before = num_links_of_tile.cumsum() - num_links_of_tile
        link = np.arange(len(tile)) + (first_link - before).repeat(num_links_of_tile)
    node = link_node[link]
    origin = forest.node_start[node]
    begin = np.maximum(start[tile] - origin, 0)
    end = np.minimum(stop[tile] - origin, forest.node_len[node])
    is_met = end > begin
    if is_met.all() and len(tile) == len(tile_task):
        return Segments(np.ones_like(tile), node, begin, end)
    num = np.bincount(tile[is_met], minlength=len(tile_task))
    return Segments(num, node[is_met], begin[is_met], end[is_met])


def _chains(forest: Forest, tasks: Tasks) -> tuple[Index, Index]:
    """List the nodes of every task's chain, root first, after counting them by task."""
    node, task = tasks.node, np.arange(len(tasks.node))
    tasks_above, nodes_above = [task], [node]
    while len(above := (forest.node_start[node] > tasks.start[task]).nonzero()[0]):
        task, node = task[above], forest.node_parent[node[above]]
        tasks_above.append(task)
        nodes_above.append(node)
    if len(nodes_above) == 1:
        return np.ones_like(node), node
    link_task = np.concatenate(tasks_above[::-1])
    link_node = np.concatenate(nodes_above[::-1])
    num_links = np.bincount(link_task, minlength=len(tasks.node))
    return num_links, link_node[argsort_small(link_task, len(tasks.node))]


def open_segments(forest: Forest, node: Index, stop: Index, max_tile_queries: int) -> Index:
    """Segments that may grow with their node: its tail, where one request alone ends there.

    Its queries must fit one tile, so that all of them stand at the tail.

    Args:
        forest: the forest.
        node: [num_segments] node of each segment.
        stop: [num_segments] one past its last token, counted in the node.
        max_tile_queries: most queries of a tile.
    """
    own = forest.node_num_queries
    _, begin, end = forest.subtree
    first_query = forest.query_indptr[:-1]
    first_query = first_query[forest.query_indptr[1:] > first_query]
    ends = forest.query_node[first_query]
    num_requests = np.bincount(ends + 1, minlength=forest.num_nodes + 1)[1:]
    is_open = (num_requests == 1) & (own <= max_tile_queries) & (end - begin == own)
    is_open &= forest.node_visible_len == forest.node_len
    return (is_open[node] & (stop == forest.node_len[node])).nonzero()[0]
