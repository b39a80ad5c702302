"""The order of work: tiles on their stored heads, the longest first."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from bough.tree_order import Index

Seconds = npt.NDArray[np.float64]


class Items(NamedTuple):
    """What programs run.

    Attributes:
        item: [num_items] `tile * num_head_splits + first head`, by falling cost.
        seconds: [num_items] what each takes.
    """

    item: Index
    seconds: Seconds


def list_items(num_heads: Index, tile_seconds: Seconds, num_head_splits: int) -> Items:
    """List the items of every tile, by falling cost.

    Args:
        num_heads: [num_tiles] head splits that an item of each tile covers.
        tile_seconds: [num_tiles] what an item of each tile takes.
        num_head_splits: head splits of each tile.
    """
    order = falling(tile_seconds)
    step = num_heads[order]
    per_tile = num_head_splits // step
    ends = per_tile.cumsum()
    # Items of a tile follow each other, `step` heads apart.
    first = order * num_head_splits - (ends - per_tile) * step
    item = first.repeat(per_tile)
    item += np.arange(len(item)) * step.repeat(per_tile)
    return Items(item, tile_seconds[order].repeat(per_tile))


def falling(seconds: Seconds) -> Index:
    """Sort the last axis by falling seconds, to a 65535th of the largest; the first come first."""
    scale = 65535.0 / seconds.max(initial=1e-30)
    return (65535.0 - seconds * scale).astype(np.uint16).argsort(kind="stable")
