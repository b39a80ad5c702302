"""The order of work: tiles on their stored heads, the longest first."""

from __future__ import annotations

from functools import lru_cache
from math import gcd
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from bough.tree_order import Index

Seconds = npt.NDArray[np.float64]


# Where items that compute take more than this of all workers' time, and each less than that of the
# step, items that wait for memory run beside them from the start, on so much of their even share of
# the workers. Elsewhere that made steps longer (docs/kernels.md).
_MOSTLY_COMPUTING, _MOST_OF_STEP, _EARLY = 0.6, 0.35, 0.45


class Items(NamedTuple):
    """What programs run.

    Attributes:
        item: [num_items] `tile * num_head_splits + first head`, in the order in which they are
            taken.
        seconds: [num_items] what each takes.
    """

    item: Index
    seconds: Seconds


def list_items(
    num_heads: Index,
    tile_seconds: Seconds,
    is_computing: npt.NDArray[np.bool_],
    num_head_splits: int,
    num_workers: int,
) -> Items:
    """List the items of every tile by falling cost, but those first that run beside each other.

    Args:
        num_heads: [num_tiles] head splits that an item of each tile covers.
        tile_seconds: [num_tiles] what an item of each tile takes.
        is_computing: [num_tiles] whether products are what it takes.
        num_head_splits: head splits of each tile.
        num_workers: workers that run side by side.
    """
    order = falling(tile_seconds)
    step = num_heads[order]
    per_tile = num_head_splits // step
    ends = per_tile.cumsum()
    # Items of a tile follow each other, `step` heads apart.
    first = order * num_head_splits - (ends - per_tile) * step
    item = first.repeat(per_tile)
    item += np.arange(len(item)) * step.repeat(per_tile)
    seconds = tile_seconds[order].repeat(per_tile)
    place = _side_by_side(seconds, is_computing[order].repeat(per_tile), num_workers)
    num_first = min(len(item), num_workers)
    place[:num_first] = place[_spread(num_first)]
    return Items(item[place], seconds[place])


def _side_by_side(seconds: Seconds, is_computing: npt.NDArray[np.bool_], num_workers: int) -> Index:
    """Order items by when they start if some workers begin with those that wait for memory."""
    total = float(seconds.sum())
    computing = seconds[is_computing]
    share = float(computing.sum()) / max(total, 1e-30)
    longest = float(computing.max(initial=0.0))
    if not _MOSTLY_COMPUTING < share < 1 or longest > _MOST_OF_STEP * total / num_workers:
        return np.arange(len(seconds))
    num_reading = _EARLY * (1 - share) * num_workers
    start = np.empty_like(seconds)
    for members, workers in (
        (is_computing, num_workers - num_reading),
        (~is_computing, num_reading),
    ):
        start[members] = (seconds[members].cumsum() - seconds[members]) / workers
    return start.argsort(kind="stable")


@lru_cache(maxsize=32)
def _spread(num: int) -> Index:
    """Number things so that any run of them comes up at even distances.

    Workers of neighbouring numbers share a path to memory: a run of items that read much would wait
    for itself on it.
    """
    # The golden ratio's steps leave no gap much wider than another.
    step = next(step for step in range(round(0.618 * num), num + 2) if gcd(step, num) == 1)
    return np.arange(num) * step % max(num, 1)


def falling(seconds: Seconds) -> Index:
    """Sort the last axis by falling seconds, to a 65535th of the largest; the first come first."""
    scale = 65535.0 / seconds.max(initial=1e-30)
    return (65535.0 - seconds * scale).astype(np.uint16).argsort(kind="stable")
