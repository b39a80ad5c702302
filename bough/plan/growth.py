"""Steps in which leaves only grew: whether a schedule still serves them, and what it needs then."""

from __future__ import annotations

import numpy as np

from bough.drafts import Words
from bough.forest import Forest
from bough.plan.cost import CostModel
from bough.plan.schedule import Schedule
from bough.plan.tables import Arrays
from bough.tree_order import Index, has_any, is_same

# What must not change for a schedule to be kept.
_FIXED = ("node_parent", "node_start", "node_first_slot", "query_node", "query_indptr")


class Growth:
    """The growing part of one schedule's tables.

    Args:
        forest: what the schedule was made for.
        schedule: the schedule.
        cost: the cost model that it was made with.
        has_drafts: whether the tables say what is hidden from each query.
    """

    def __init__(
        self, forest: Forest, schedule: Schedule, cost: CostModel, has_drafts: bool
    ) -> None:
        self.planned = forest
        self._has_drafts = has_drafts
        node, begin = schedule.segment_node, schedule.segment_begin
        at = _open_segments(forest, schedule)
        self._open = at if cost.spec.window is None else at[:0]
        self.open_nodes = node[self._open]
        length = (schedule.segment_stop - begin)[self._open]
        allowance = np.maximum(length // 4, max(cost.device.kv_quantum, 64)).astype(np.uint32)
        self._allowance = np.zeros(forest.num_nodes, dtype=np.uint32)
        # Tiles of one node have nearly as many tokens each; any of them says enough.
        self._allowance[self.open_nodes] = allowance

        self._seeing: slice | Index = slice(None)
        if len(forest.subtree[0]) < forest.num_queries:
            self._seeing = (forest.query_node >= 0).nonzero()[0]
        self._ends = forest.query_node[self._seeing].astype(np.intp)
        self._behind = self._behind_nodes(forest)
        self._fixed = {name: getattr(forest, name).tobytes() for name in _FIXED}

        self._node = node
        self._first_slot = forest.node_first_slot[node] + begin
        self._page = self._first_slot // forest.page_size
        self._position = forest.node_start[node] + begin
        self._page_start = forest.node_page_start[node] + self._page
        self._segment_len = schedule.segment_stop - begin
        self._reserve(forest)
        self._current = forest

    def serves(self, forest: Forest) -> bool:
        """Whether requests end where they ended, in leaves of theirs that grew within allowance."""
        planned = self.planned
        if forest.page_size != planned.page_size:
            return False
        if forest.query_hidden is not None and not self._has_drafts:
            return False
        for name, numbers in self._fixed.items():
            array = getattr(forest, name)
            if array is not getattr(planned, name) and array.tobytes() != numbers:
                return False
        # A node that became shorter is far beyond its allowance without a sign.
        grown = (forest.node_len - planned.node_len).astype(np.uint32)
        return not has_any(grown > self._allowance) and self._behind == self._behind_nodes(forest)

    def all_arrays(self, forest: Forest) -> Arrays:
        """Collect the tables of segments and positions, for a forest that the schedule serves."""
        changed = self.changed_arrays(forest)
        fixed = {"segment_first_slot": self._first_slot % forest.page_size}
        return fixed | {"segment_position": self._position} | self._segments() | changed

    def changed_arrays(self, forest: Forest) -> Arrays:
        """Collect those of them that changed since the last call."""
        current, self._current = self._current, forest
        has_moved = not is_same(forest.node_page_start, current.node_page_start)
        has_more = not is_same(forest.node_num_pages, current.node_num_pages)
        if has_moved:
            self._page_start = forest.node_page_start[self._node] + self._page
        if has_more:
            self._reserve(forest)
        position: Arrays = {"query_position": forest.query_position}
        position["query_hidden"] = self._hidden(forest)
        return self._segments() | position if has_moved or has_more else position

    def _behind_nodes(self, forest: Forest) -> bytes:
        """How far each query's position lies from the length of the node in which it ends."""
        lengths = forest.node_len.take(self._ends)
        return (forest.query_position[self._seeing] - lengths).tobytes()

    def _segments(self) -> Arrays:
        return {"segment_page_start": self._page_start, "segment_len": self._segment_len}

    def _hidden(self, forest: Forest) -> Words:
        if forest.query_hidden is not None:
            return forest.query_hidden
        return np.zeros(forest.num_queries * self._has_drafts, dtype=np.int64)

    def _reserve(self, forest: Forest) -> None:
        """Let open segments reach to the end of their nodes' pages."""
        slots = forest.node_num_pages[self.open_nodes] * forest.page_size
        self._segment_len[self._open] = slots - self._first_slot[self._open]


def _open_segments(forest: Forest, schedule: Schedule) -> Index:
    """Segments that may grow with their node: those that end at their tile's newest query.

    That is the tail of a node in which one request alone ends; where its queries take several
    tiles, it is the tail that each of those sees.
    """
    node, num_segments = schedule.segment_node, schedule.tile_segment_indptr
    own = forest.node_num_queries
    _, begin, end = forest.subtree
    is_open = end - begin == own
    if own.max(initial=0) > 1:
        first_query = forest.query_indptr[:-1]
        first_query = first_query[forest.query_indptr[1:] > first_query]
        ends = forest.query_node[first_query]
        is_open &= np.bincount(ends + 1, minlength=forest.num_nodes + 1)[1:] == 1
    is_open &= forest.node_visible_len == forest.node_len
    newest = schedule.query_indices[schedule.tile_query_begin + schedule.tile_num_queries - 1]
    tile = np.arange(schedule.num_tiles).repeat(num_segments[1:] - num_segments[:-1])
    stop = forest.node_start[node] + schedule.segment_stop
    ends_there = stop == forest.query_position[newest][tile] + 1
    return (is_open[node] & ends_there).nonzero()[0]
