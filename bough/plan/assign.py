"""Which worker runs what, and when all are done."""

from __future__ import annotations

import heapq
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from bough.tree_order import Index


class Assignment(NamedTuple):
    """Workers of a list of items.

    Attributes:
        worker: [num_items] worker of each item.
        makespan: seconds until the last worker is done.
    """

    worker: Index
    makespan: float


def assign(seconds: npt.NDArray[np.float64], num_workers: int) -> Assignment:
    """Deal items in order, each to the worker that is free first (Graham 1969).

    Args:
        seconds: [num_items] how long each takes.
        num_workers: workers that run side by side.
    """
    worker: list[int] = []
    free = [(0.0, at) for at in range(num_workers)]
    for taken in seconds.tolist():
        since, at = free[0]
        worker.append(at)
        heapq.heapreplace(free, (since + taken, at))
    return Assignment(np.array(worker, dtype=np.intp), max(free)[0])
