"""Balanced assignment of tiles to workers."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

# The last rounds are dealt by load; before them, dealing to and fro is as even and much cheaper.
_ROUNDS_BY_LOAD = 8


class Assignment(NamedTuple):
    """Which worker runs which item, in which order.

    Attributes:
        worker: [num_items] worker of each item, by falling cost.
        item: [num_items] the items by falling cost.
        makespan: seconds until the last worker is done.
    """

    worker: npt.NDArray[np.intp]
    item: npt.NDArray[np.intp]
    makespan: float


def assign(item_cost: npt.NDArray[np.float64], num_workers: int) -> Assignment:
    """Deal items to workers in rounds by falling cost, the largest to the least loaded.

    A round is one item a worker: longest processing time first (Graham 1969), a round at a time.

    Args:
        item_cost: [num_items] worker-seconds.
        num_workers: workers that run side by side.
    """
    num_items = len(item_cost)
    item = np.argsort(-item_cost, kind="stable")
    num_rounds = -(-num_items // num_workers)
    cost = np.zeros((num_rounds, num_workers))
    cost.reshape(-1)[:num_items] = item_cost[item]
    worker = np.tile(np.arange(num_workers), (num_rounds, 1))
    num_dealt = max(0, num_rounds - _ROUNDS_BY_LOAD)
    worker[1:num_dealt:2] = worker[1:num_dealt:2, ::-1]
    load = np.zeros(num_workers)
    np.add.at(load, worker[:num_dealt].reshape(-1), cost[:num_dealt].reshape(-1))
    for row in range(num_dealt, num_rounds):
        worker[row] = np.argsort(load, kind="stable")
        load[worker[row]] += cost[row]
    return Assignment(worker.reshape(-1)[:num_items], item, float(load.max(initial=0.0)))
