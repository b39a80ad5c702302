"""The order in which cached nodes are given up: of those that may go, the longest unused first."""

from __future__ import annotations

import heapq
from itertools import count

from bough.cache.node import RadixNode


class EvictionQueue:
    """Unlocked childless nodes by `last_used`.

    A node that is locked, removed or given a child meanwhile is not taken out: its entry is out of
    date and skipped when it comes up, and all such entries are cleared when they are the most.
    """

    def __init__(self) -> None:
        self._tie_breaker = count()
        self._entries: list[tuple[int, int, RadixNode]] = []
        self._clear_at = 64

    def offer(self, node: RadixNode) -> None:
        """Note that `node` may be evicted, if it may."""
        if node.num_locks or node.children:
            return
        if len(self._entries) >= self._clear_at:
            self._entries = [entry for entry in self._entries if _is_up_to_date(entry)]
            heapq.heapify(self._entries)
            self._clear_at = 64 + 2 * len(self._entries)
        heapq.heappush(self._entries, (node.last_used, next(self._tie_breaker), node))

    def pop(self) -> RadixNode | None:
        """Take out the node that was unlocked first; None if no node may be evicted."""
        while self._entries:
            entry = heapq.heappop(self._entries)
            if _is_up_to_date(entry):
                return entry[-1]
        return None


def _is_up_to_date(entry: tuple[int, int, RadixNode]) -> bool:
    last_used, _, node = entry
    is_evictable = node.parent is not None and not node.num_locks and not node.children
    return is_evictable and node.last_used == last_used
