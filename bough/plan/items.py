"""The order of work: tiles on their stored heads, the longest first."""

from __future__ import annotations

from math import gcd
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from bough.tree_order import Index

Seconds = npt.NDArray[np.float64]


class Items(NamedTuple):
    """What programs run.

    Attributes:
        item: [num_items] `tile * num_head_splits + first head`, by falling cost but for the first
            of every worker, which are spread.
        seconds: [num_items] what each takes.
    """

    item: Index
    seconds: Seconds


def list_items(
    num_heads: Index, tile_seconds: Seconds, num_head_splits: int, num_workers: int
) -> Items:
    """List the items of every tile.

    Args:
        num_heads: [num_tiles] head splits that an item of each tile covers.
        tile_seconds: [num_tiles] what an item of each tile takes.
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
    num_first = min(len(item), num_workers)
    place = _spread(num_first)
    item[:num_first] = item[place]
    seconds[:num_first] = seconds[place]
    return Items(item, seconds)


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
