"""Balanced assignment of tiles to workers."""

from __future__ import annotations

import heapq
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Seconds = npt.NDArray[np.float64]
# Items a worker that are dealt one by one at the end, which evens out what came before.
_DEALT_LAST = 1


class Assignment(NamedTuple):
    """Which worker runs which item.

    Attributes:
        worker: [num_items] worker of each item, by falling cost.
        item: [num_items] the items by falling cost.
        makespan: seconds until the last worker is done.
    """

    worker: npt.NDArray[np.intp]
    item: npt.NDArray[np.intp]
    makespan: float


def assign(item_cost: Seconds, num_workers: int) -> Assignment:
    """Deal items by falling cost, each to the least loaded worker (Graham 1969).

    One by one that takes a microsecond an item, so of many items only the largest, one a worker,
    and the last few are dealt so. Those between are poured: cut into consecutive runs that fill
    all workers to one level, which is off by an item at most.

    Args:
        item_cost: [num_items] worker-seconds.
        num_workers: workers that run side by side.
    """
    num_items = len(item_cost)
    item = np.argsort(-item_cost, kind="stable")
    cost = item_cost[item]
    worker = np.zeros(num_items, dtype=np.intp)
    load = np.zeros(num_workers)

    num_first = min(num_items, num_workers)
    worker[:num_first] = np.arange(num_first)
    load[:num_first] = cost[:num_first]
    dealt = max(num_first, num_items - _DEALT_LAST * num_workers)
    if dealt > num_first:
        poured = _pour(cost[num_first:dealt], load)
        worker[num_first:dealt] = poured
        load += np.bincount(poured, cost[num_first:dealt], minlength=num_workers)

    heap = [(seconds, at) for at, seconds in enumerate(load.tolist())]
    heapq.heapify(heap)
    for row, seconds in enumerate(cost[dealt:].tolist(), start=dealt):
        least, at = heap[0]
        worker[row] = at
        heapq.heapreplace(heap, (least + seconds, at))
    makespan = max(seconds for seconds, _ in heap)
    return Assignment(worker, item, makespan)


def _pour(cost: Seconds, load: Seconds) -> npt.NDArray[np.intp]:
    """Choose workers so that all that are not above it already reach one level."""
    total = cost.sum()
    by_load = np.sort(load)
    levels = (total + np.cumsum(by_load)) / np.arange(1, len(load) + 1)
    is_reached = levels >= by_load
    level = levels[np.flatnonzero(is_reached)[-1]]
    filled = np.cumsum(np.maximum(level - load, 0.0))
    middle = np.cumsum(cost) - cost / 2
    return np.minimum(np.searchsorted(filled, middle), len(load) - 1)
