"""Which worker runs what, and when all are done, by when workers are free and memory is read."""

from __future__ import annotations

import heapq
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from bough.tree_order import Index

Seconds = npt.NDArray[np.float64]


class Assignment(NamedTuple):
    """Workers of a list of items.

    Attributes:
        worker: [num_items] worker of each item.
        makespan: seconds until the last worker is done.
    """

    worker: Index
    makespan: float


def assign(seconds: Seconds, num_workers: int, reading: Seconds | None = None) -> Assignment:
    """Deal items in order, each to the worker that is free first (Graham 1969).

    Args:
        seconds: [num_items] how long each takes.
        num_workers: workers that run side by side.
        reading: [num_items] seconds that each reads memory at an even share of its bandwidth,
            where items may read faster; None where none does.
    """
    worker: list[int] = []
    starts: list[float] = []
    free = [(0.0, at) for at in range(num_workers)]
    for taken in seconds.tolist():
        since, at = free[0]
        worker.append(at)
        starts.append(since)
        heapq.heapreplace(free, (since + taken, at))
    makespan = max(free)[0]
    if reading is not None:
        makespan = max(makespan, reading_end(np.array(starts), reading, num_workers))
    return Assignment(np.array(worker, dtype=np.intp), makespan)


def reading_end(start: Seconds, reading: Seconds, num_workers: int) -> float:
    """Return when memory can have been read: what is left at some start is read after it.

    Args:
        start: [num_items] when each item starts, ascending.
        reading: [num_items] seconds that each reads memory at an even share of its bandwidth.
        num_workers: workers that run side by side.
    """
    left = reading[::-1].cumsum()[::-1]
    return float((start + left / num_workers).max(initial=0.0))
